"""What counts as a credential, and what it costs: the definition that holds it."""

import base64

import pytest

from lit_pref.data.source_code.files import SourceFile
from lit_pref.syntax.words import words
from lit_pref.synthesis.mining.credentials import credential_spans
from lit_pref.synthesis.mining.source_code import SnippetSettings, snippets_of_file

LETTERS = "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0dF2hJ4kL6nP8rS1tV3xY5zA7cG9"  # 58 characters, made up


@pytest.mark.parametrize(
    "line",
    [
        "key = 'AKIA" + LETTERS[:16].upper() + "'",
        "token = 'ghp_" + LETTERS[:36] + "'",
        "x = 'github_pat_" + (LETTERS * 2)[:82] + "'",
        "x = 'glpat-" + LETTERS[:20] + "'",
        "x = 'xoxb-123456789012-" + LETTERS[:24] + "'",
        "x = 'sk-" + LETTERS[:48] + "'",
        "x = 'sk-proj-" + LETTERS[:48] + "'",
        "x = 'AIza" + LETTERS[:35] + "'",
        "x = 'hf_" + LETTERS[:34] + "'",
        "x = '-----BEGIN RSA PRIVATE KEY-----\\n" + LETTERS[:40] + "'",
        "x = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + LETTERS[:40] + "'",
        "password = 'hG7#kL2!pQ9z'",
        'DB_PASSWORD="hG7#kL2!pQ9z"',
        "config = {'client_secret': '9f8b2c7d4e1a6053'}",
        "headers = {'X-Api-Key': '9f8b2c7d4e1a6053'}",
        "aws_secret_access_key = '" + LETTERS[:40] + "'",
    ],
)
def test_a_definition_with_a_credential_is_dropped_and_no_other(line):
    text = f"def leaks():\n    {line}\n    return 1\n\n\ndef innocent():\n    x = 1\n    return x\n"
    of_file = snippets_of_file(SourceFile("a.py", ".py", text), SnippetSettings())
    assert [snippet.name for snippet in of_file.snippets] == ["innocent"]
    assert of_file.counts["dropped definitions: credential"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "password = get_password()",
        "password = 'your-password-123'",
        "password = '${DB_PASSWORD_1}'",
        "password = 'aaaaaaaaaaaa1'",  # 0.4 bits a character
        "password_field = 'name_of_a_field_1'",
        "token = 'end_of_sequence'",  # no digit
        "task = 'task-" + LETTERS[:20] + "'",  # `sk-` within a word
        "begin = '-----BEGIN PRIVATE KEY-----'",  # a parser's constant
        "x = '" + base64.b64encode(bytes(range(40))).decode() + "'",
    ],
)
def test_innocent_values_stay(line):
    source = f"def f():\n    {line}\n    return 1\n".encode()
    assert credential_spans(source, words(source)) == []
