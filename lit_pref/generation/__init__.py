"""Prompts to completions."""

from lit_pref.generation.local import LocalGenerator
from lit_pref.generation.server import OpenAIGenerator
from lit_pref.generation.vllm import VLLMGenerator

__all__ = ["LocalGenerator", "OpenAIGenerator", "VLLMGenerator"]
