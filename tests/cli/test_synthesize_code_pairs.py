"""`lit-pref synthesize --recipe code_pairs` as a user meets it: a complete folder, going on, servers, mistakes."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from lit_pref.cli.main import main
from lit_pref.data.formats.pairs import read_pairs
from lit_pref.generation.policy import PolicyGenerator
from lit_pref.models import load_causal_lm, weights_fingerprint
from lit_pref.synthesis.code_pairs import pipeline, steps
from lit_pref.synthesis.mining import snippet_shards
from lit_pref.types import Completion, Drawn, Generator, Sampling

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "synthesize"
RECIPE = ["synthesize", "--recipe", "code_pairs", "--output", "out", "--source", "source"]
MODELS = ["--completions.sampling.max_new_tokens", "96", "--completions.sampling.temperature", "0.2"]
MUTANTS = [*RECIPE, "--construction", "MutatedRejected"]  # asks no model

FUNCTION = '''\
def f{0}(xs, k):
    """{1}"""
    kept = [x + {0} for x in xs if x > k]
    return kept


'''
WORDS = ["apples", "pears", "plums", "cherries", "grapes", "figs", "melons", "dates", "limes", "olives"]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(4):
        docs = [f"Keep the {WORDS[2 * number + i]}, add {number * 2 + i} to each of them." for i in (0, 1)]
        text = "".join(FUNCTION.format(number * 2 + i, doc) for i, doc in enumerate(docs))
        # One without a docstring a file, and one that says what the first file says.
        text += FUNCTION.format(100 + number, "").replace('    """"""\n', f"    print({number})\n")
        (folder / f"m{number}.py").write_text(text)
    (folder / "again.py").write_text(FUNCTION.format(77, "keep the APPLES; add 0 to each of them").replace("x", "item"))
    (folder / "other.go").write_text("// Adds.\nfunc Add(a int, b int) int {\n\tc := a + b\n\treturn c\n}\n")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(list(arguments))
        assert exit_.value.code == 2
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return shown.err.strip().splitlines()[-1].removeprefix("lit-pref: error: ")

    return run


def summary(output: str = "out") -> Any:
    return json.loads(Path(output, "summary.json").read_text())


def rows(stage: str, output: str = "out") -> list[dict[str, Any]]:
    return [
        row for path in sorted(Path(output, stage).glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def content(output: str) -> dict[str, bytes]:
    """All that stands in a folder but what says when it was made."""
    return {str(path.relative_to(output)): path.read_bytes() for path in Path(output).rglob("part-*.parquet")}


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_a_folder_holds_pairs_counts_and_where_they_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    main([*RECIPE, *MODELS, "--filters.syntax", "false", "--seed", "3"])
    shown = capsys.readouterr().out
    counts = Counter(summary()["counts"])
    # 4 files of three functions, one file of one, one of Go: six files, 14 definitions
    assert (counts["files"], counts["definitions"], counts["snippets"]) == (6, 14, 14)
    assert counts["dropped: empty description"] == 4 and counts["dropped: duplicate description"] == 1
    assert counts["descriptions"] == 9
    assert counts["pairs"] + sum(count for name, count in counts.items() if name.startswith("no pair")) == 9
    for name, count in counts.items():
        assert name in shown and f"{count:,}" in shown
    generators = summary()["generators"]
    assert {part: found["name"] for part, found in generators.items()} == {
        "strong": "embedded:coder-strong",
        "weak": "embedded:coder-weak",
    }
    assert generators["weak"]["identity"]["policy"] == weights_fingerprint(load_causal_lm("embedded:coder-weak"))
    pairs = rows("pairs")
    assert len(pairs) == counts["pairs"] == len(read_pairs("out/pairs").records) > 0
    assert {pair["construction"] for pair in pairs} == {"StrongWeak"}
    assert all(pair["origin"].startswith(("m", "again", "other")) for pair in pairs)
    assert "--data.train out/pairs" in shown


def test_the_same_command_finds_all_and_another_construction_asks_no_model_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main([*RECIPE, *MODELS, "--filters.syntax", "false"])
    first, made = summary(), content("out")
    capsys.readouterr()
    main([*RECIPE, *MODELS, "--filters.syntax", "false"])
    assert "Writing" not in capsys.readouterr().out
    assert (summary(), content("out")) == (first, made)
    main([*RECIPE, *MODELS, "--construction", "OriginalChosen", "--filters.syntax", "false"])
    assert "Writing" not in capsys.readouterr().out
    assert {pair["construction"] for pair in rows("pairs")} == {"OriginalChosen"}
    assert all('"""' not in pair["better"] for pair in rows("pairs"))
    assert summary()["generators"].keys() == {"weak"}
    kept = {name: data for name, data in made.items() if not name.startswith("pairs")}
    assert {name: data for name, data in content("out").items() if not name.startswith("pairs")} == kept


def test_mutants_need_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    main(MUTANTS)
    assert "Writing" not in capsys.readouterr().out
    counts = summary()["counts"]
    assert counts["pairs"] == 8 and counts["no pair: no mutants of this language"] == 1
    for pair in rows("pairs"):
        assert pair["better"] != pair["worse"] and pair["query"].lower().startswith("keep the ")


def test_languages_and_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    main([*MUTANTS, "--source.path", "source", "--source.languages", "[python]", "--source.limit", "6"])
    counts = summary()["counts"]
    assert counts["dropped files: other language"] == 1 and counts["snippets beyond the limit"] == 13 - 6
    assert len(rows("snippets")) == 6


def test_an_interrupted_run_says_how_to_go_on_and_ends_with_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (snippet_shards, pipeline):
        monkeypatch.setattr(module, "SHARD_ROWS", 4)
    whole = [*RECIPE, *MODELS, "--filters.syntax", "false"]
    whole[whole.index("out")] = "whole"
    main(whole)
    each, drawn, limit = PolicyGenerator.each, list[tuple[int, ...]](), 6

    def stopped(self: PolicyGenerator, *arguments: Any) -> Iterator[Drawn]:
        for one in each(self, *arguments):
            if len(drawn) == limit:
                raise KeyboardInterrupt
            drawn.append((arguments[3], *one[:2]))  # by the shard's seed
            yield one

    with monkeypatch.context() as patched:
        patched.setattr(PolicyGenerator, "each", stopped)
        with pytest.raises(SystemExit) as exit_:
            main([*RECIPE, *MODELS, "--filters.syntax", "false"])
    assert exit_.value.code == 130
    assert "interrupted; the same command goes on from what is finished" in capsys.readouterr().err
    kept = {path: path.stat().st_mtime_ns for path in Path("out/completions").rglob("part-*.parquet")}
    assert len(kept) == 1 and not Path("out/summary.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(PolicyGenerator, "each", stopped)
        limit = 10**9
        main([*RECIPE, *MODELS, "--filters.syntax", "false"])
    assert len(drawn) == len(set(drawn)) == 2 * 9  # strong and weak, nothing twice
    assert not list(Path("out").rglob("*.drawn.jsonl"))
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert content("out") == content("whole")


def test_other_settings_are_refused_for_a_folder_that_was_made(refused: Callable[..., str]) -> None:
    main([*MUTANTS, "--source.path", "source", "--source.limit", "6"])
    message = refused(*MUTANTS, "--source.path", "source", "--source.limit", "7")
    assert message == "out/snippets: was made otherwise (limit: 6 there, 7 now); name another folder or delete this one"


@pytest.mark.slow
def test_ray_makes_the_same_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    local = [*RECIPE, *MODELS, "--filters.syntax", "false"]
    main(local)
    Path("out").rename("local")
    main([*local, "--runner", "ray"])
    assert content("out") == content("local")


# --- generators that fail ---------------------------------------------------------------------------------------------


def nothing(self: PolicyGenerator, prompts: Sequence[Any], *_: Any) -> list[list[Completion]]:
    return [[Completion("", (), (), True)] for _ in prompts]


def test_a_generator_that_writes_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setattr(PolicyGenerator, "generate", nothing)
    monkeypatch.setattr(PolicyGenerator, "each", Generator.each)
    message = refused(*RECIPE, *MODELS)
    assert message == "out/pairs: no pair is left; no pair: empty side: 9"
    assert len(rows("completions/weak")) == 9  # kept as they are


def test_a_describer_that_writes_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setattr(PolicyGenerator, "generate", nothing)
    monkeypatch.setattr(PolicyGenerator, "each", Generator.each)
    describer = ["--describer.descriptions", "generated", "--describer.generator", "embedded:coder"]
    assert refused(*RECIPE, *describer) == "out/described: no description is left; dropped: empty description: 14"


def test_a_generator_that_gives_too_few_answers_is_named(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setattr(PolicyGenerator, "generate", lambda self, prompts, *_: [])
    monkeypatch.setattr(PolicyGenerator, "each", Generator.each)
    message = refused(*RECIPE, *MODELS)
    assert message == "--strong: PolicyGenerator gave 0 completions for 9 prompts: expected one each"


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # a client that went away


class Server:
    """Answers what its script says for the number of the request: text, a status to refuse with, or None to hang up."""

    def __init__(self, script: Callable[[int], str | int | None]) -> None:
        self.prompts: list[str] = []
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None: ...

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    server.prompts.append(request["prompt"])
                    answer = script(len(server.prompts) - 1)
                if answer is None:
                    self.close_connection = True
                    return
                status = answer if isinstance(answer, int) else 200
                choice = {"index": 0, "text": answer, "finish_reason": "stop"}
                body = json.dumps({"choices": [choice]} if status == 200 else {"message": "not now"}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("retry-after-ms", "1")  # else the first wait is half a second
                self.end_headers()
                self.wfile.write(body)

        self._http = _QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int], str | int | None]], list[str]]]:
    servers: list[Server] = []

    def start(script: Callable[[int], str | int | None]) -> list[str]:
        servers.append(Server(script))
        part = ["--weak", "OpenAIGenerator", "--weak.model", "m", "--weak.base_url", servers[-1].url]
        return [*RECIPE, "--construction", "OriginalChosen", *part, "--completions.style", "instruct"]

    yield start
    for server in servers:
        server.close()


def test_a_server_that_stumbles_costs_no_pair(serve: Callable[..., list[str]]) -> None:
    # The first answers are 429, 500 and a dropped connection; each is asked again.
    stumbles: dict[int, int | None] = {0: 429, 1: 500, 2: None, 5: 503}
    answer = "```python\ndef f(xs, k):\n    return k\n```"
    command = serve(lambda number: stumbles.get(number, answer))
    main([*command, "--weak.concurrency", "1", "--source.languages", "[python]", "--source.path", "source"])
    counts = summary()["counts"]
    assert counts["descriptions"] == counts["pairs"] == 8
    assert {pair["worse"] for pair in rows("pairs")} == {"def f(xs, k):\n    return k\n"}
    assert summary()["generators"]["weak"]["name"] == "OpenAIGenerator"


def test_a_server_that_stays_away_costs_no_finished_shard(
    serve: Callable[..., list[str]], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (snippet_shards, pipeline):
        monkeypatch.setattr(module, "SHARD_ROWS", 4)
    answer, down = "```\ndef f(xs, k):\n    return k\n```", [True]
    # Nine descriptions in shards of four: the first shard is answered, then the server is down.
    command = [*serve(lambda number: 500 if down[0] and number >= 4 else answer), "--weak.retries", "0"]
    message = refused(*command)
    assert message.endswith("/v1/completions: answered 500: not now")
    kept = Path("out/completions/weak/part-00000.parquet").stat().st_mtime_ns
    down[0] = False
    main(command)
    assert Path("out/completions/weak/part-00000.parquet").stat().st_mtime_ns == kept
    assert len(rows("completions/weak")) == 9


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe", "code_pair"], "--recipe: there is no recipe 'code_pair'; did you mean 'code_pairs'?"),
        (["--recipe=xyz"], "--recipe: there is no recipe 'xyz'; there are: execution_pairs, code_pairs"),
        (["--config", "bad.yaml"], "bad.yaml: recipe: there is no recipe 'codepairs'; did you mean 'code_pairs'?"),
        ([*RECIPE[1:], "--source", "nowhere"], "nowhere: no such folder or file"),
        ([*RECIPE[1:], "--strongg", "x"], "there is no option 'strongg'; did you mean 'strong'?"),
        ([*RECIPE[1:], "--construction", "StrongWeek"], "did you mean 'StrongWeak'?"),
        ([*RECIPE[1:], "--construction", "ClippedDescription", "--construction.keep", "2"], "keep must be in (0, 1)"),
        ([*RECIPE[1:], "--describer.descriptions", "generated"], "generated needs a generator"),
        ([*RECIPE[1:], "--runner", "rey"], "'local', 'ray'"),
        ([*RECIPE[1:], "--runner", "LocalRunner", "--runner.workers", "0"], "workers must be >= 1, got 0"),
        ([*RECIPE[1:], "--strong", "embedded:koder"], "embedded:koder"),
        ([*RECIPE[1:], "--source.path", "source", "--source.limit", "0"], "limit must be >= 1, got 0"),
    ],
)
def test_mistakes_are_said_in_a_line(refused: Callable[..., str], arguments: list[str], expected: str) -> None:
    Path("bad.yaml").write_text("recipe: codepairs\n")
    assert expected in refused("synthesize", *arguments)


def test_a_source_without_code(refused: Callable[..., str]) -> None:
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("x")
    assert "empty: holds no source code, but 1 other files" in refused(*MUTANTS, "--source", "empty")


# --- which recipe -----------------------------------------------------------------------------------------------------


def test_help_names_the_recipes_and_shows_the_options_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, option in (([], "--pairs_per_problem"), (["--recipe", "code_pairs"], "--construction")):
        with pytest.raises(SystemExit) as exit_:
            main(["synthesize", *arguments, "--help"])
        assert exit_.value.code == 0
        shown = capsys.readouterr().out
        assert option in shown and "execution_pairs, code_pairs" in shown


def test_the_recipe_of_the_last_place_counts(capsys: pytest.CaptureFixture[str]) -> None:
    code, execution = str(CONFIGS / "code_pairs.yaml"), str(CONFIGS / "execution_pairs.yaml")
    Path("execution.yaml").write_text("recipe: execution_pairs\n")
    for arguments, option in (
        (["--config", code], "construction:"),
        ([f"--config={code}"], "construction:"),
        (["--config", execution], "pairs_per_problem:"),
        (["--recipe", "code_pairs", "--config", "execution.yaml"], "pairs_per_problem:"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["synthesize", *arguments, "--print_config"])
        assert exit_.value.code == 0
        assert option in capsys.readouterr().out


@pytest.mark.parametrize("name", ["code_pairs", "code_pairs_deepseek"])
def test_configs_begin_with_their_command_and_hold_what_is_written(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIGS / f"{name}.yaml"
    assert config.read_text().splitlines()[0] == f"# lit-pref synthesize --config configs/synthesize/{name}.yaml"
    with pytest.raises(SystemExit):
        main(["synthesize", "--config", str(config), "--print_config"])
    resolved, written = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(config.read_text())
    assert written.keys() <= resolved.keys()
    for key in ("source", "describer", "completions", "filters"):
        plain = {name: value for name, value in written[key].items() if name != "generator"}
        resolved[key].get("sampling", {}).pop("stop", None)  # none of them states it
        assert resolved[key].items() >= plain.items()
    if name == "code_pairs_deepseek":
        sampling = Sampling(**resolved["describer"]["sampling"])
        assert sampling == Sampling(temperature=0.7, top_p=1.0, max_new_tokens=1024)  # [C]
        assert resolved["weak"]["init_args"]["model"] == "deepseek-ai/deepseek-coder-1.3b-instruct"


def test_the_standard_library_is_the_default_source(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ["--config", str(CONFIGS / "code_pairs.yaml"), "--output", "out", "--source.limit", "40"]
    main(["synthesize", *config, "--construction", "MutatedRejected"])
    assert summary()["provenance"]["snippets"]["path"] == "the standard library"
    assert len(rows("snippets")) == 40 and summary()["counts"]["pairs"] > 0
    assert not any("site-packages" in row["origin"] for row in rows("snippets"))
    assert steps.seed_of(1, "strong", 0) != steps.seed_of(1, "weak", 0)
