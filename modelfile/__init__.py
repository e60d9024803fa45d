"""The languages a model is written in. Pure: no input or output."""
