"""The runner: the process in which one model is loaded. Only here is llama.cpp imported."""
