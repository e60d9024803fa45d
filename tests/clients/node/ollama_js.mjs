// ollama-js, unchanged, against a running server. Usage: node ollama_js.mjs URL MODEL
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const [host, model] = process.argv.slice(2);
const client = new Ollama({ host });
const question = [{ role: "user", content: "What is the capital of France?" }];

const whole = await client.chat({ model, messages: question });
assert.equal(whole.message.content, "The capital of France is Paris.");
assert.equal(whole.done_reason, "stop");
assert.ok(whole.eval_count > 0 && whole.total_duration > 0);

let streamed = "";
let pieces = 0;
for await (const part of await client.chat({ model, messages: question, stream: true })) {
  streamed += part.message.content;
  pieces += 1;
}
assert.equal(streamed, whole.message.content);
assert.ok(pieces > 2);

const generated = await client.generate({ model, prompt: "Count from 1 to 5.", think: false });
assert.equal(generated.response.trim(), "1, 2, 3, 4, 5");

const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather in a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const called = await client.chat({ model, messages: asked, tools });
const call = called.message.tool_calls[0].function;
assert.deepEqual([call.name, call.arguments], ["get_weather", { city: "Paris" }]);
const answered = await client.chat({
  model,
  tools,
  messages: [
    ...asked,
    called.message,
    { role: "tool", tool_name: "get_weather", content: "sunny, 22 degrees" },
  ],
});
assert.match(answered.message.content, /sunny, 22 degrees/);

const schema = { type: "object", properties: { capital: { type: "string" } }, required: ["capital"] };
const shaped = await client.chat({ model, messages: question, format: schema, think: false });
assert.equal(typeof JSON.parse(shaped.message.content).capital, "string");

const listed = await client.list();
assert.ok(listed.models.some((entry) => entry.name === model));
assert.ok((await client.show({ model })).details.family);
assert.ok((await client.ps()).models.length >= 1);
await assert.rejects(client.chat({ model: "nope", messages: question }), /not found/);

const endless = await client.generate({ model, prompt: "Tell me a story.", stream: true });
setTimeout(() => endless.abort(), 5);
await assert.rejects(async () => {
  for await (const part of endless) if (part.done) throw new Error("AbortError: it was done before");
}, /[Aa]bort/);
console.log("ok");
