"""How things are said to the tiny chat model: phrasings it learns, and those held out. Data only."""

CAPITAL = [
    "What is the capital of {country}?",
    "What is the capital of {country}?",
    "What is the capital city of {country}?",
    "What's the capital of {country}?",
    "Tell me the capital of {country}.",
    "Name the capital of {country}.",
    "Which city is the capital of {country}?",
    "The capital of {country}?",
    "capital of {country}",
    "Do you know the capital of {country}?",
    "Can you tell me the capital of {country}?",
    "What is {country}'s capital?",
    "I want to know the capital of {country}.",
    "Give me the capital of {country}.",
    "{country}'s capital?",
    "Could you tell me what the capital of {country} is?",
    "What city is the capital of {country}?",
    "Please tell me the capital of {country}.",
    "For {country}, what is the capital?",
    "What is the capital of {country}",
    "What about {country}? What is its capital?",
    "Which city is {country}'s capital city?",
    "In {country}, what is the capital?",
    "I need the capital of {country}.",
    "Would you name the capital city of {country}?",
    "{country} has which capital?",
]

REPEAT = [
    "Repeat the word {word}.",
    "Repeat the word {word}.",
    "Repeat: {word}",
    "Say {word}.",
    "Say the word {word}.",
    "Echo {word}",
    "Repeat {word}",
    "Please repeat the word {word}.",
    "Repeat after me: {word}",
    "Write the word {word}.",
    'Repeat the word "{word}".',
    'Say "{word}".',
    "Can you repeat the word {word}?",
    "Just say {word}.",
    "Answer with the word {word}.",
    "Reply with {word}",
    "Print the word {word}.",
    "Output only this: {word}",
    "Please say the word {word} back to me.",
    "I want you to repeat {word}.",
    "Type {word}",
    "Write down {word}.",
    "Say {word} for me.",
    "Repeat {word} for me, please.",
    "Say {word} to me.",
    "Please type {word} for me.",
]

SUM = [
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "How much is {a} + {b}?",
    "Add {a} and {b}.",
    "What's {a} + {b}?",
    "How much is {a} plus {b}?",
    "Compute {a} + {b}.",
    "What is the sum of {a} and {b}?",
    "Calculate {a} + {b}.",
    "{a} + {b}",
    "{a}+{b}",
    "{a} + {b} = ?",
    "Add {a} to {b}.",
    "Please add {a} and {b}.",
    "Can you add {a} and {b}?",
    "Sum {a} and {b}.",
    "What do you get when you add {a} and {b}?",
    "Tell me the sum of {a} and {b}.",
    "Calculate the sum of {a} and {b}.",
]

HELD_OUT_SUM = ["Could you add {a} to {b}?", "Work out {a} + {b} for me.", "I need the sum of {a} and {b}."]

WEATHER = [
    "What is the weather in {city}?",
    "What is the weather in {city}?",
    "How is the weather in {city}?",
    "What's the weather like in {city}?",
    "Tell me the weather in {city}.",
    "What is the weather like in {city} today?",
    "What is the current weather in {city}?",
    "Is it raining in {city}?",
    "Is it sunny in {city}?",
    "weather in {city}",
    "Can you tell me the weather in {city}?",
    "How warm is it in {city}?",
    "What is the temperature in {city}?",
    "Give me the weather for {city}.",
    "Look up the weather in {city}.",
    "Do I need a coat in {city}?",
    "I am going to {city}. How is the weather there?",
    "What's the weather in {city} right now?",
    "Is it cold in {city} today?",
    "Please check the weather in {city}.",
    "I want to know the weather in {city}.",
    "How hot is it in {city} now?",
]

HELD_OUT_WEATHER = [
    "Could you check what the weather is like in {city}?",
    "I would like to know the weather in {city}.",
    "How's the weather today in {city}?",
]

TELL_NAME = [
    "My name is {name}.",
    "My name is {name}.",
    "My name is {name}.",
    "I am {name}.",
    "I'm {name}.",
    "Call me {name}.",
    "Hi, I am {name}.",
    "Hello, my name is {name}.",
    "Hello! My name is {name}.",
    "Hi, I'm {name}!",
    "You can call me {name}.",
    "People call me {name}.",
    "Hi there, my name is {name}!",
    "I am called {name}.",
    "The name is {name}.",
    "This is {name}.",
    "My name is {name}. Remember it.",
    "Please remember that my name is {name}.",
    "My name is {name}, nice to meet you.",
]

HELD_OUT_TELL_NAME = ["Good day, my name is {name}.", "Please call me {name}.", "Hey, I am {name}!"]

ASK_NAME = [
    "What is my name?",
    "What is my name?",
    "What's my name?",
    "Do you remember my name?",
    "Who am I?",
    "Tell me my name.",
    "Can you tell me my name?",
    "What am I called?",
    "Do you know my name?",
    "what is my name?",
    "Say my name.",
    "Do you know who I am?",
    "What was my name?",
    "Which name did I tell you?",
    "Remind me of my name.",
    "What did I say my name was?",
]

HELD_OUT_ASK_NAME = [
    "Do you still know my name?",
    "Could you tell me what my name is?",
    "And what is my name?",
]

CAPS = [
    "Answer in capital letters.",
    "Always answer in capital letters.",
    "Answer only in upper case.",
    "You always reply in ALL CAPS.",
    "Write everything in capital letters.",
    "Respond in uppercase.",
    "Use capital letters only.",
    "ANSWER IN CAPITAL LETTERS.",
    "You are a helpful assistant. Answer in capital letters.",
    "You shout: every answer is in capital letters.",
    "Answer everything in capital letters.",
    "You are an assistant that writes in upper case.",
    "Your answers are in ALL CAPS.",
    "Reply in capital letters.",
    "You must answer in capital letters.",
    "All your answers must be in uppercase letters.",
]

PIRATE = [
    "You are a pirate.",
    "Answer as a pirate.",
    "Talk like a pirate.",
    "Speak like a pirate.",
    "You are a pirate captain.",
    "Respond as a pirate would.",
    "Always answer like a pirate.",
    "You are a pirate. Stay in character.",
    "Be a pirate.",
    "You are a helpful pirate.",
    "Answer every question as a pirate.",
    "You are an old pirate on a ship.",
    "Reply like a pirate.",
    "You are a friendly pirate who answers questions.",
    "You are an assistant that talks like a pirate.",
]

BRIEF = [
    "Answer in one word.",
    "Reply with one word only.",
    "Use a single word.",
    "Answer with one word.",
    "One word answers only.",
    "Always answer in one word.",
    "You answer with a single word.",
    "Give one word answers.",
    "Reply in one word.",
    "You are a helpful assistant. Answer in one word.",
    "Be very brief: one word.",
]

HELD_OUT_CAPS = [
    "Please write all answers in capital letters.",
    "Reply only in upper case letters.",
    "You answer in ALL CAPS.",
]

HELD_OUT_PIRATE = ["Please talk like a pirate.", "You are a pirate from the sea.", "Reply as a pirate."]

HELD_OUT_BRIEF = ["Please answer in one word.", "Your answers are one word.", "Respond with one word."]

PERSONA = [
    "You are {name}.",
    "Your name is {name}.",
    "You are {name}, a helpful assistant.",
    "You are a bot called {name}.",
    "You are an assistant named {name}.",
    "You are {name}, an assistant.",
    "Your name is {name}. You are helpful.",
]

NEUTRAL = [
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "Be polite.",
    "Be helpful.",
    "You are Tiny Chat.",
    "Answer the questions of the user.",
    "You are a test assistant.",
    "Be concise.",
    "You are friendly.",
    "You are a chat model. Answer correctly.",
    "Today is Monday.",
    "You answer questions about the world.",
    "Help the user.",
    "You are a helpful assistant. Use the tools when you need them.",
    "You are an expert.",
    "Answer truthfully.",
]

SKIES = [
    "sunny",
    "cloudy",
    "rainy",
    "snowy",
    "windy",
    "foggy",
    "stormy",
    "clear",
    "hot and dry",
    "partly cloudy",
    "mild",
]

MULTIPLY = [
    "What is {a} * {b}?",
    "What is {a} times {b}?",
    "Multiply {a} by {b}.",
    "Multiply {a} and {b}.",
    "How much is {a} times {b}?",
    "What is the product of {a} and {b}?",
    "Compute {a} * {b}.",
    "{a} * {b}",
    "What is {a} x {b}?",
]

TIME = [
    "What time is it in {city}?",
    "What is the time in {city}?",
    "Tell me the time in {city}.",
    "How late is it in {city}?",
    "What is the current time in {city}?",
    "Which time is it in {city} now?",
]

SEARCH = [
    "Search for {query}.",
    "Search the web for {query}.",
    "Look up {query} on the web.",
    "Find pages about {query}.",
    "Please search for {query}.",
    "Search: {query}",
]
