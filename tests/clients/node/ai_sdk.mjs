// Vercel's AI SDK, unchanged, against a running server. Usage: node ai_sdk.mjs URL MODEL
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [host, name] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "lading",
  baseURL: `${host}/v1`,
  apiKey: "any",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider(name);
const prompt = "What is the capital of France?";

const whole = await generateText({ model, prompt, temperature: 0 });
assert.equal(whole.text, "The capital of France is Paris.");
assert.equal(whole.finishReason, "stop");
assert.ok(whole.usage.inputTokens > 0 && whole.usage.outputTokens > 0);

const stream = streamText({ model, prompt, temperature: 0 });
let streamed = "";
for await (const piece of stream.textStream) streamed += piece;
assert.equal(streamed, whole.text);
assert.ok((await stream.usage).outputTokens > 0);

const weather = tool({
  description: "The weather in a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    assert.equal(city, "Paris");
    return "sunny, 22 degrees";
  },
});
const used = await generateText({
  model,
  prompt: "What is the weather in Paris?",
  tools: { get_weather: weather },
  stopWhen: stepCountIs(3),
  temperature: 0,
});
assert.match(used.text, /sunny, 22 degrees/);

const shaped = await generateObject({
  model,
  schema: z.object({ capital: z.string(), population: z.number().int().min(0).max(9) }),
  prompt,
  temperature: 0,
});
assert.equal(typeof shaped.object.capital, "string");
assert.ok(Number.isInteger(shaped.object.population));

await assert.rejects(generateText({ model: provider("nope"), prompt, maxRetries: 0 }), /not found/);
console.log("ok");
