"""Models of the same weights in one runner: adapters, templates, tenants, side by side and kept apart."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command import TINY_CHAT
from live_runner import Answer, LiveRunner, ask, ask_all, chat, live_runner, options
from model_shelf import ModelShelf
from msgspec import structs
from random_models import adapter
from server_processes import wait_until

from lading.oci.gguf.problem import BadGguf
from lading.runtime.client import RunnerClient
from lading.runtime.errors import DoesNotFit, ModelRefused, Pinned, Quarantined, RunnerLost, ShuttingDown
from lading.runtime.grant import Acquire, Grant
from lading.runtime.keeper import Keeper
from lading.runtime.protocol import Adapter, Generate, Message, Variant, VariantAdded, VariantRefused
from lading.runtime.runner.adapters import NO_ADAPTERS, AdapterSet, passes

MakeKeeper = Callable[..., Keeper]
QUESTIONS = ("What is the capital of France?", "Count from 1 to 9.", "What is the capital of Japan?")
LONG = "You are a helpful assistant. The capital of France is Paris. " * 12
SHORT = options(num_predict=24)
TERSE = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\nCount from 1 to 5.<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)


def loras(folder: Path, *names: str) -> dict[str, Variant]:
    """Variants with one adapter each, every one another's."""
    made = {}
    for seed, name in enumerate(names, 1):
        path = adapter(folder / f"{name}.gguf", seed=seed)
        made[name] = Variant(id=name, adapters=(Adapter(path=str(path), digest=f"sha256:{name}"),))
    return made


def raw(text: str, **fields: Any) -> Generate:
    return Generate(id=0, prompt=text, raw=True, **({"options": SHORT} | fields))


async def talk(runner: LiveRunner, *requests: Generate) -> list[Answer]:
    """One after the other."""
    async with runner.client() as client:
        return [await ask(client, request) for request in requests]


# In the runner


def test_many_variants_answer_at_once_as_each_does_alone(tmp_path: Path) -> None:
    variants = {
        "": Variant(),
        **loras(tmp_path, "one", "two"),
        "terse": Variant(id="terse", template_go=TERSE),
        "both": Variant(
            id="both",
            template_go=TERSE,
            adapters=(Adapter(path=str(tmp_path / "two.gguf"), digest="sha256:two", scale=0.5),),
        ),
    }
    adapter(tmp_path / "two.gguf", seed=2)
    requests = [
        chat(question, think=False, options=SHORT, variant=name)
        for question in QUESTIONS
        for name in variants
    ]
    alone = {}
    for name, variant in variants.items():
        with live_runner(TINY_CHAT, n_ctx=512, n_parallel=8, template_go=variant.template_go) as runner:
            of_its_own = Variant(id=name, adapters=variant.adapters, template_go=variant.template_go)
            assert isinstance(runner.add_variant(of_its_own), VariantAdded)
            for request in requests:
                if request.variant == name:
                    [answer] = asyncio.run(talk(runner, request))
                    alone[name, request.messages[0].content] = answer.text
    with live_runner(TINY_CHAT, n_ctx=512, n_parallel=8) as runner:
        for name, variant in variants.items():
            assert not name or isinstance(runner.add_variant(variant), VariantAdded)

        async def all_at_once() -> list[Answer]:
            async with runner.client() as client:
                return await ask_all(client, requests)

        answers = asyncio.run(all_at_once())
    together = {
        (request.variant, request.messages[0].content): answer.text
        for request, answer in zip(requests, answers, strict=True)
    }
    assert together == alone
    assert len({together[name, QUESTIONS[0]] for name in ("", "one", "two")}) == 3, "adapters change answers"
    assert "Paris" in together["", QUESTIONS[0]]


def test_prefixes_are_shared_among_templates_and_never_among_adapters(tmp_path: Path) -> None:
    variants = loras(tmp_path, "one", "two")
    variants["terse"] = Variant(id="terse", template_go=TERSE)
    variants["same"] = structs.replace(variants["one"], id="same", template_go=TERSE)
    prompt = LONG + QUESTIONS[0]
    with live_runner(TINY_CHAT, n_ctx=1024, n_parallel=4) as runner:
        for variant in variants.values():
            runner.add_variant(variant)
        order = ("", "one", "two", "terse", "same", "")
        answers = asyncio.run(talk(runner, *(raw(prompt, variant=name) for name in order)))
    cached = [answer.end.usage.cached_tokens for answer in answers]
    whole = answers[0].end.usage.prompt_tokens - 1
    assert cached == [0, 0, 0, whole, whole, whole]
    assert answers[4].text == answers[1].text


def test_prefixes_are_not_shared_among_tenants() -> None:
    prompt = LONG + QUESTIONS[0]
    with live_runner(TINY_CHAT, n_ctx=1024, n_parallel=4) as runner:
        order = ("", "a", "b", "a", "b", "")
        answers = asyncio.run(talk(runner, *(raw(prompt, tenant=name) for name in order)))
    cached = [answer.end.usage.cached_tokens for answer in answers]
    whole = answers[0].end.usage.prompt_tokens - 1
    assert cached == [0, 0, 0, whole, whole, whole]
    assert len({answer.text for answer in answers}) == 1


def test_nobody_waits_for_the_prompt_of_another_tenant() -> None:
    """To wait until it is read would tell as much as to find it there."""
    prompt = LONG + QUESTIONS[0]

    async def at_once(runner: LiveRunner) -> list[Answer]:
        async with runner.client() as client:
            return await ask_all(client, [raw(prompt, tenant=tenant) for tenant in ("a", "b", "a", "b")])

    with live_runner(TINY_CHAT, n_ctx=1024, n_parallel=4) as runner:
        answers = asyncio.run(at_once(runner))
    cached = [answer.end.usage.cached_tokens for answer in answers]
    whole = answers[0].end.usage.prompt_tokens - 1
    assert sorted(cached) == [0, 0, whole, whole]


def test_saved_prefixes_are_of_one_tenant_and_one_set_of_adapters(tmp_path: Path) -> None:
    folder = tmp_path / "prefixes"
    folder.mkdir()
    variants = loras(tmp_path, "one", "two")
    prompt = LONG * 2 + QUESTIONS[0]

    def life(*asked: tuple[str, str]) -> list[int]:
        with live_runner(
            TINY_CHAT, n_ctx=1024, n_parallel=4, prefix_folder=str(folder), prefix_budget=1 << 28
        ) as runner:
            for variant in variants.values():
                runner.add_variant(variant)
            requests = [raw(prompt, variant=variant, tenant=tenant) for variant, tenant in asked]
            answers = asyncio.run(talk(runner, *requests))
            runner.control.close()
            assert runner.process.wait(30) == 0
        return [answer.end.usage.cached_tokens for answer in answers]

    assert life(("one", "a")) == [0]
    assert len(list(folder.iterdir())) == 1
    others = life(("two", "a"), ("one", "b"), ("", "a"), ("one", ""))
    assert others == [0, 0, 0, 0]
    assert life(("one", "a"))[0] > 350


def test_a_prefix_under_the_name_of_another_scope_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "prefixes"
    folder.mkdir()
    prompt = LONG * 2 + QUESTIONS[0]

    def life(tenant: str) -> int:
        with live_runner(
            TINY_CHAT, n_ctx=1024, n_parallel=2, prefix_folder=str(folder), prefix_budget=1 << 28
        ) as runner:
            [answer] = asyncio.run(talk(runner, raw(prompt, tenant=tenant)))
            runner.control.close()
            assert runner.process.wait(30) == 0
        return answer.end.usage.cached_tokens

    life("a")
    [of_a] = folder.iterdir()
    life("b")
    [of_b] = set(folder.iterdir()) - {of_a}
    scope_b = of_b.name.partition("-")[0]
    of_b.unlink()
    of_a.rename(folder / f"{scope_b}-{of_a.name.partition('-')[2]}")
    assert life("b") == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda path: path.write_bytes(TINY_CHAT.read_bytes()), "general.type", id="a model"),
        pytest.param(lambda path: path.write_bytes(b"GGUF" + bytes(100)), "refuses", id="nonsense"),
        pytest.param(lambda path: adapter(path, seed=1, width=64), "incorrect shape", id="another width"),
    ],
)
def test_a_hostile_adapter_is_refused_while_others_are_answered(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "bad.gguf")
    bad = Variant(id="bad", adapters=(Adapter(path=str(tmp_path / "bad.gguf"), digest="sha256:bad"),))
    good = loras(tmp_path, "good")["good"]

    async def body(runner: LiveRunner) -> None:
        endless = chat("Count from 1 to 30.", think=False, options=options(num_predict=600, temperature=1.5))
        async with runner.client() as client:
            stream = client.generate(endless)
            await anext(stream)
            for _ in range(3):
                reply = await asyncio.to_thread(runner.add_variant, bad)
                assert isinstance(reply, VariantRefused) and reply.code == "bad_model"
                assert words in reply.message and "\n" not in reply.message
            assert isinstance(await asyncio.to_thread(runner.add_variant, good), VariantAdded)
            assert [event async for event in stream], "the stream went on"
            assert (await ask(client, raw("Hello", variant="good"))).text
            with pytest.raises(ShuttingDown):
                await ask(client, raw("Hello", variant="bad"))

    with live_runner(TINY_CHAT, n_ctx=1024, n_parallel=2) as runner:
        asyncio.run(body(runner))


@pytest.mark.parametrize("count", [2, 17, 250])
def test_more_adapters_than_there_may_be_or_one_twice_are_refused(count: int, tmp_path: Path) -> None:
    [one] = loras(tmp_path, "one").values()
    same = count == 2
    many = tuple(
        structs.replace(one.adapters[0], digest="sha256:one" if same else f"sha256:{i}") for i in range(count)
    )
    with live_runner(TINY_CHAT, n_ctx=256) as runner:
        reply = runner.add_variant(Variant(id="many", adapters=many))
        assert isinstance(reply, VariantRefused) and "at most 16" in reply.message
        assert isinstance(runner.add_variant(one), VariantAdded)


def test_a_variant_that_is_dropped_is_refused_and_its_adapter_freed(tmp_path: Path) -> None:
    variants = loras(tmp_path, "one", "two")

    async def body(runner: LiveRunner) -> None:
        async with runner.client() as client:
            endless = raw("Count", variant="one", options=options(num_predict=300, temperature=1.5))
            stream = client.generate(endless)
            await anext(stream)
            runner.drop_variant("one")
            while "one" in (await client.status()).variants:
                await asyncio.sleep(0.01)
            with pytest.raises(ShuttingDown):
                await ask(client, raw("Hello", variant="one"))
            assert [event async for event in stream], "what was under way ends as it should"
            for turn in range(5):  # its memory is free for others, which do not mistake it for theirs
                await client.status()
                again = structs.replace(variants["two"], id=f"two-{turn}")
                await asyncio.to_thread(runner.add_variant, again)
                answers.append((await ask(client, raw("Hello there", variant=again.id))).text)
                runner.drop_variant(again.id)
            assert set((await client.status()).variants) <= {"two-4"}

    answers: list[str] = []
    with live_runner(TINY_CHAT, n_ctx=1024, n_parallel=2) as runner:
        runner.add_variant(variants["one"])
        asyncio.run(body(runner))
        runner.add_variant(structs.replace(variants["one"], id="again"))
        [again] = asyncio.run(talk(runner, raw("Hello there", variant="again")))
    assert len(set(answers)) == 1
    assert again.text != answers[0]


def test_every_set_has_its_turn_in_each_step() -> None:
    one, two = AdapterSet("one"), AdapterSet("two")

    class Someone:
        def __init__(self, adapters: AdapterSet) -> None:
            self.adapters = adapters

    a, b, c, d = (Someone(adapters) for adapters in (NO_ADAPTERS, one, two, one))
    answering = [(a, None, 1), (b, None, 1), (c, None, 1)]
    reading = [(d, None, 64)]
    found = passes((answering, reading), one)
    assert found == [
        (one, [answering[1]]),
        (one, reading),
        (NO_ADAPTERS, [answering[0]]),
        (two, [answering[2]]),
    ]
    assert passes((answering[:1], []), one) == [(NO_ADAPTERS, answering[:1])]
    assert passes(([], []), one) == []


# Through the keeper


def acquire(keeper: Keeper, model: str, **fields: Any) -> Grant:
    return keeper.acquire(Acquire(model=model, **fields))


def said(grant: Grant, question: str = QUESTIONS[0]) -> Answer:
    """What a model says, with its own system prompt."""

    async def go() -> Answer:
        client = await RunnerClient.connect(grant.socket_path)
        system = (Message("system", grant.facts.system),) if grant.facts.system else ()
        request = chat(question, think=False, options=SHORT, variant=grant.variant)
        request = structs.replace(request, messages=(*system, *request.messages))
        try:
            return await ask(client, request)
        finally:
            await client.aclose()

    return asyncio.run(go())


def names(keeper: Keeper) -> set[str]:
    return {model.name.partition(":")[0] for model in keeper.loaded()}


FAMILY = ("tiny", "formal", "brief", "terse", "pirate")


@pytest.fixture
def family(shelf: ModelShelf) -> ModelShelf:
    """Five models of the same weights: as they are, two with adapters, one with a template, one with a system
    prompt."""
    for name, seed in (("formal", 1), ("brief", 2)):
        adapter(shelf.folder / f"{name}.gguf", seed=seed)
        shelf.create(name, f"FROM tiny\nADAPTER {name}.gguf\n")
    shelf.create("terse", f'FROM tiny\nTEMPLATE """{TERSE}"""\n')
    shelf.create("pirate", "FROM tiny\nSYSTEM You are a pirate.\n")
    return shelf


def test_one_process_serves_models_that_differ_in_adapters_template_and_system(
    family: ModelShelf, keeper_of: MakeKeeper
) -> None:
    expected = {}
    for name in FAMILY:
        keeper = keeper_of(family, num_parallel=2, template="go")
        expected[name] = [said(acquire(keeper, name), question).text for question in QUESTIONS]
        keeper.close()
    keeper = keeper_of(family, num_parallel=2, template="go")
    with ThreadPoolExecutor(10) as threads:
        calls = {
            name: [
                threads.submit(lambda n=name, q=question: said(acquire(keeper, n), q).text)
                for question in QUESTIONS
            ]
            for name in FAMILY
        }
        answers = {name: [call.result(100) for call in those] for name, those in calls.items()}
    models = keeper.loaded()
    assert {model.name.partition(":")[0] for model in models} == set(FAMILY)
    assert len({model.pid for model in models}) == 1
    assert answers == expected
    assert len({answers[name][0] for name in FAMILY}) == len(FAMILY)
    size = sum((family.folder / f"{name}.gguf").stat().st_size for name in ("formal", "brief"))
    [slot] = keeper._pool.slots()
    assert slot.adapters_size() == size
    assert models[0].memory["adapters"] == size


def test_unload_is_of_one_name_and_the_runner_goes_with_the_last(
    family: ModelShelf, keeper_of: MakeKeeper
) -> None:
    keeper = keeper_of(family)
    grants = {name: acquire(keeper, name) for name in ("tiny", "formal", "pirate")}
    for grant in grants.values():
        said(grant)
    [slot] = keeper._pool.slots()
    size = slot.adapters_size()
    assert keeper.unload("formal")
    wait_until(lambda: names(keeper) == {"tiny", "pirate"})
    assert (size > 0, slot.adapters_size()) == (True, 0)
    assert keeper.unload("formal") is False
    assert "Paris" in said(grants["tiny"]).text
    back = acquire(keeper, "formal")
    assert back.socket_path == grants["formal"].socket_path and back.variant != grants["formal"].variant
    assert said(back).text
    for name in ("tiny", "formal", "pirate"):
        assert keeper.unload(name)
    wait_until(lambda: not keeper.loaded())


def test_each_name_has_a_keep_alive_of_its_own(family: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(family, keep_alive_s=60.0)
    said(acquire(keeper, "tiny"))
    said(acquire(keeper, "formal", keep_alive=0.0))
    wait_until(lambda: names(keeper) == {"tiny"})
    assert len(keeper._pool.slots()) == 1
    expires = keeper.loaded()[0].expires_at
    assert expires is not None and expires > time.time() + 30


def test_a_pinned_name_keeps_the_runner_and_lets_others_go(family: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(family, pinned=("formal",))
    said(acquire(keeper, "tiny"))
    said(acquire(keeper, "formal"))
    assert {model.name: model.pinned for model in keeper.loaded()} == {
        "tiny:latest": False,
        "formal:latest": True,
    }
    with pytest.raises(Pinned, match="stopping formal:latest"):
        keeper.unload("formal")
    assert keeper.unload("tiny")
    wait_until(lambda: names(keeper) == {"formal"})
    longer = acquire(keeper, "tiny", options={"num_ctx": 2048, "num_batch": 64})
    assert said(longer).text
    assert names(keeper) == {"formal", "tiny"}, "a pinned name comes with every runner of its weights"
    assert said(acquire(keeper, "formal")).text


def test_the_memory_of_adapters_counts(shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path) -> None:
    adapter(shelf.folder / "fat.gguf", seed=1, rank=4096)
    shelf.create("fat", "FROM tiny\nADAPTER fat.gguf\nPARAMETER num_ctx 256\n")
    shelf.create("thin", "FROM tiny\nPARAMETER num_ctx 256\n")
    other = shelf.variant(tiny_chat, "other.gguf", b"general.name", b"general.nam2")
    shelf.create("other", f"FROM {other}\nPARAMETER num_ctx 256\n")
    probe = keeper_of(shelf, num_parallel=1)
    acquire(probe, "thin", verb="load")
    need = probe._pool.slots()[0].need.wanted
    keeper = keeper_of(shelf, num_parallel=1, memory_budget=int(need * 1.02), grant_grace_s=0.1)
    said(acquire(keeper, "thin"))
    with pytest.raises(DoesNotFit, match=r"loading fat:latest: it needs 16 MB of memory \(adapters"):
        acquire(keeper, "fat")
    assert names(keeper) == {"thin"}
    roomy = keeper_of(shelf, num_parallel=1, memory_budget=int(need * 2.02), grant_grace_s=0.1)
    for name in ("thin", "other"):
        said(acquire(roomy, name))
    assert said(acquire(roomy, "fat")).text, "another model made room for it"
    assert names(roomy) == {"thin", "fat"}


def test_an_adapter_of_another_model_is_refused_before_a_runner_sees_it(
    family: ModelShelf, keeper_of: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keeper_of(family)
    said(acquire(keeper, "tiny"))
    adapter(family.folder / "wide.gguf", seed=3, width=64)
    from lading.oci.building import build

    with monkeypatch.context() as patch:  # a model from a registry is not checked as `create` checks it
        patch.setattr(build, "check_adapter_fits", lambda *_: [])
        family.create("wide", "FROM tiny\nADAPTER wide.gguf\n")
    with pytest.raises(BadGguf, match="the adapter is for another model"):
        acquire(keeper, "wide")
    assert "Paris" in said(acquire(keeper, "tiny")).text


def test_what_llama_cpp_refuses_of_an_adapter_is_one_sentence_and_ends_nobody(
    family: ModelShelf, keeper_of: MakeKeeper
) -> None:
    keeper = keeper_of(family)
    before = acquire(keeper, "tiny")
    variant = next(iter(keeper._pool.slots()[0].variants.values()))
    path = family.folder / "model.gguf"
    path.write_bytes(TINY_CHAT.read_bytes())
    files = structs.replace(
        variant.plan.files.variant, adapters=(Adapter(path=str(path), digest="sha256:model"),)
    )
    slot = keeper._pool.slots()[0]
    with pytest.raises(ModelRefused, match=r"refuses the file: expect general\.type to be 'adapter'"):
        slot.process.add_variant(structs.replace(files, id="x"), 30)
    assert "Paris" in said(before).text
    assert acquire(keeper, "tiny").socket_path == before.socket_path


def test_an_adapter_that_kills_the_runner_is_not_held_against_the_others(
    family: ModelShelf, keeper_of: MakeKeeper
) -> None:
    keeper = keeper_of(family)
    for _ in range(3):
        said(acquire(keeper, "tiny"))
        [slot] = keeper._pool.slots()
        os.kill(slot.process.pid, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(acquire, keeper, "formal")
            wait_until(lambda slot=slot: len(slot.variants) == 2)
            os.kill(slot.process.pid, signal.SIGKILL)
            assert isinstance(call.exception(60), RunnerLost)
        wait_until(lambda: not keeper._pool.slots())
    with pytest.raises(Quarantined, match="loading formal:latest: its runner stopped unexpectedly 3 times"):
        acquire(keeper, "formal")
    assert "Paris" in said(acquire(keeper, "tiny")).text
    assert said(acquire(keeper, "brief")).text
