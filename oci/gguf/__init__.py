"""GGUF files: a bounded reader of headers, and a checker of what llama.cpp takes for granted."""
