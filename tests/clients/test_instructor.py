"""Instructor, in its modes that lean on the server: JSON Schema, and required tools."""

import instructor
import openai
import pytest
from pydantic import BaseModel, Field


class Capital(BaseModel):
    country: str
    capital: str
    letters: int = Field(ge=0, le=50)


@pytest.mark.parametrize("mode", [instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS])
def test_a_model_comes_back(mode: instructor.Mode, url: str, model: str) -> None:
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0), mode=mode
    )
    question = [{"role": "user", "content": "Give the capital of France as JSON."}]
    found = client.create(
        model=model, messages=question, response_model=Capital, temperature=0, max_retries=0, max_tokens=300
    )
    assert isinstance(found, Capital)
