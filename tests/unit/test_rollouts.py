"""The sampler against ``model.generate``, exact probabilities, and itself in other batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, PreTrainedModel
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from distil.config.schema import RolloutConfig
from distil.engine.rollouts import RUN, Generated, generate, next_tokens, uniforms

if TYPE_CHECKING:
    from tests.conftest import ModelFactory

EOS, PAD, NEW = 2, 0, 24
WHOLE = RolloutConfig(max_new_tokens=NEW)
PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17], [20, 21], [5, 6, 7]]


@pytest.fixture(params=["llama", "gpt2", "mistral"])
def model(
    request: pytest.FixtureRequest, tiny_llama: ModelFactory, tiny_gpt2: ModelFactory
) -> PreTrainedModel:
    """Rotary positions, absolute positions, and a sliding window shorter than what is generated.

    A wide initialisation makes the distributions differ from token to token, so that a wrong position shows.
    """
    if request.param == "llama":
        return tiny_llama(initializer_range=0.3)
    if request.param == "gpt2":
        return tiny_gpt2(initializer_range=0.3)
    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=5,
        initializer_range=0.3,
    )
    return MistralForCausalLM(config).eval()


def ours(
    model: nn.Module, prompts: list[list[int]], sampling: RolloutConfig = WHOLE, **settings: Any
) -> list[Generated]:
    return generate(
        model, prompts, sampling, **({"eos_ids": {EOS}, "pad_id": PAD, "uniforms": None} | settings)
    )


def theirs(model: PreTrainedModel, prompts: list[list[int]], eos: list[int]) -> list[list[int]]:
    """Greedy ``generate()`` on the left-padded batch, cut after the first EOS."""
    width = max(map(len, prompts))
    padded = [[PAD] * (width - len(p)) + p for p in prompts]
    mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    new = model.generate(
        input_ids=torch.tensor(padded),
        attention_mask=torch.tensor(mask),
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=eos,
        pad_token_id=PAD,
    )[:, width:].tolist()
    return [row[: min([row.index(e) + 1 for e in eos if e in row], default=NEW)] for row in new]


def common_token(model: PreTrainedModel) -> int:
    """A token that some greedy rows reach early and others do not."""
    rows = [set(row.ids[:12]) for row in ours(model, PROMPTS[:4], eos_ids=())]
    return min(t for t in set.union(*rows) if sum(t in row for row in rows) in (1, 2, 3))


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1], [[7, 8]] * 3], ids=["ragged", "one", "equal"])
def test_greedy_equals_transformers(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    """Token by token, with left padding, and with rows that end early."""
    for eos in ([EOS], [EOS, common_token(model)]):
        generated = ours(model, prompts, eos_ids=eos)
        assert [row.ids for row in generated] == theirs(model, prompts, eos)
        for row in generated:
            assert row.ended == (row.ids[-1] in eos)
            assert not set(row.ids[:-1]) & set(eos)
            assert row.ended or len(row.ids) == NEW


def test_greedy_equals_a_loop_without_cache(model: PreTrainedModel) -> None:
    for prompt, row in zip(PROMPTS, ours(model, PROMPTS), strict=True):
        ids = list(prompt)
        for token in row.ids:
            with torch.no_grad():
                assert token == int(model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)


def test_tokens_do_not_depend_on_the_batch(model: PreTrainedModel) -> None:
    """One by one, reversed, and beside a longer prompt: each row draws what it draws in the whole batch."""
    eos = {EOS, common_token(model)}
    noise = uniforms(3, 7, range(len(PROMPTS)), NEW)
    whole = ours(model, PROMPTS, uniforms=noise, eos_ids=eos)
    assert len({tuple(row.ids) for row in whole}) == len(whole)  # rows of one prompt differ by their noise
    assert len({len(row.ids) for row in whole}) > 1
    for i, prompt in enumerate(PROMPTS):
        assert ours(model, [prompt], uniforms=noise[i : i + 1], eos_ids=eos) == [whole[i]]
        longer = [[30] * 19, prompt]
        assert ours(model, longer, uniforms=noise[[0, i]], eos_ids=eos)[1] == whole[i]
    assert ours(model, PROMPTS[::-1], uniforms=noise.flip(0), eos_ids=eos) == whole[::-1]


def test_first_tokens_have_the_models_probabilities(tiny_llama: ModelFactory) -> None:
    model, rows = tiny_llama(vocab=24, initializer_range=0.2), 6000
    warm = RolloutConfig(max_new_tokens=2, sampling_temperature=1.5)
    drawn = ours(model, [[5, 6]] * rows, warm, uniforms=uniforms(0, 0, range(rows), 2))
    with torch.no_grad():
        exact = (model(torch.tensor([[5, 6]])).logits[0, -1].double() / 1.5).softmax(-1)
    counts = torch.tensor([row.ids[0] for row in drawn]).bincount(minlength=24)
    assert (exact * rows).min() > 5
    assert chisquare(counts.numpy(), (exact * rows).numpy()).pvalue > 0.01


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1.0, 0, 1.0),
        (0.7, 0, 1.0),
        (1.0, 5, 1.0),
        (1.0, 0, 0.8),
        (1.3, 12, 0.6),
        (1.0, 1000, 1.0),
        (1, 1, 1e-9),
    ],
)
def test_settings_equal_the_processors_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    """Over an even grid of noise every token comes up as often as its probability says, within one point."""
    logits = 2 * torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    processed: Tensor = logits
    for processor in (
        TemperatureLogitsWarper(float(temperature)),
        *([TopKLogitsWarper(top_k)] if top_k else []),
        *([TopPLogitsWarper(top_p)] if top_p < 1 else []),
    ):
        processed = processor(None, processed)
    points, sampling = 20_000, RolloutConfig(sampling_temperature=temperature, top_k=top_k, top_p=top_p)
    grid = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    for row, expected in zip(logits, processed.double().softmax(-1), strict=True):
        tokens = next_tokens(row.expand(points, -1), grid, sampling)
        frequency = tokens.bincount(minlength=40) / points
        torch.testing.assert_close(frequency.double(), expected, rtol=0, atol=1.01 / points)
        assert not (tokens.bincount(minlength=40) > 0)[expected == 0].any()


@pytest.mark.parametrize("vocabulary", [RUN - 1, RUN, RUN + 1, 3 * RUN + 7])
def test_the_token_is_the_one_whose_share_holds_the_noise(vocabulary: int) -> None:
    """In runs of ids that are full or not; within what float32 knows of the shares' ends."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(2000, vocabulary, generator=generator)
    noise = torch.rand(2000, generator=generator, dtype=torch.float64)
    ends = logits.double().softmax(-1).cumsum(-1)
    tokens = next_tokens(logits, noise, WHOLE)[:, None]
    assert len(tokens.unique()) > vocabulary / 4
    starts = ends.gather(-1, (tokens - 1).clamp(min=0)).masked_fill(tokens == 0, 0)
    assert (noise[:, None] >= starts - 1e-6).all()
    assert (noise[:, None] < ends.gather(-1, tokens) + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53, 1.0]), st.integers(1, 3 * RUN)
)
def test_impossible_tokens_are_never_drawn(seed: int, u: float, v: int) -> None:
    """Also at the very ends of the noise, where rounding would fall off the table."""
    generator = torch.Generator().manual_seed(seed)
    logits = 30 * torch.randn(4, v, generator=generator)
    possible = torch.rand(4, v, generator=generator) < 0.3
    possible[torch.arange(4), torch.randint(v, (4,), generator=generator)] = True
    noise = torch.full((4,), u, dtype=torch.float64)
    tokens = next_tokens(logits.masked_fill(~possible, -torch.inf), noise, WHOLE)
    assert possible[torch.arange(4), tokens].all()


@pytest.mark.parametrize(("top_p", "kept"), [(0.25, 1), (0.5, 2), (0.75, 3), (0.8, 4)])
def test_the_fewest_tokens_that_reach_top_p_are_kept(top_p: float, kept: int) -> None:
    """Four alike: three of them reach three quarters together, and no fourth is needed."""
    noise = torch.linspace(0, 0.999, 400, dtype=torch.float64)
    tokens = next_tokens(torch.zeros(400, 4), noise, RolloutConfig(top_p=top_p))
    assert len(tokens.unique()) == kept


def test_only_the_newest_logits_are_computed(model: PreTrainedModel) -> None:
    positions: list[int] = []
    model.register_forward_hook(lambda _module, _inputs, output: positions.append(output.logits.shape[1]))
    ours(model, PROMPTS)
    assert set(positions) == {1}


@pytest.mark.parametrize("place", [0, 1, RUN - 1, RUN, RUN + 1, 3 * RUN, 3 * RUN + 6])
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2.0**-53])
def test_the_only_possible_token_is_drawn_wherever_it_stands(place: int, u: float) -> None:
    """Whole runs of ids may be impossible before and after it."""
    logits = torch.full((2, 3 * RUN + 7), -torch.inf)
    logits[:, place] = torch.tensor([0.0, -70.0])
    assert next_tokens(logits, torch.full((2,), u, dtype=torch.float64), WHOLE).tolist() == [place, place]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("all_of_them", [False, True])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.9)])
def test_logits_that_are_no_numbers_give_ids_of_the_vocabulary(
    bad: float, all_of_them: bool, top_k: int, top_p: float
) -> None:
    """The loss says what is wrong, in words; an id beyond the vocabulary would end in an index error."""
    sampling = RolloutConfig(top_k=top_k, top_p=top_p)
    for vocabulary in (7, RUN, RUN + 7):
        logits = torch.zeros(3, vocabulary)
        logits[1, slice(None) if all_of_them else 3] = bad
        for noise in (0.0, 0.5, 1 - 2.0**-53):
            tokens = next_tokens(logits, torch.full((3,), noise).double(), sampling)
            assert ((tokens >= 0) & (tokens < vocabulary)).all()


def test_generation_config_has_no_say(tiny_llama: ModelFactory) -> None:
    """A model that brings top_k=1 and a repetition penalty samples and decodes as one that brings nothing."""
    plain, opinionated = tiny_llama(initializer_range=0.3), tiny_llama(initializer_range=0.3)
    opinionated.generation_config = GenerationConfig(
        do_sample=True,
        top_k=1,
        repetition_penalty=9.0,
        temperature=0.1,
        max_new_tokens=3,
        eos_token_id=[5, 6],
    )
    noise = uniforms(0, 0, range(len(PROMPTS)), NEW)
    for chance in (None, noise):
        assert ours(plain, PROMPTS, uniforms=chance) == ours(opinionated, PROMPTS, uniforms=chance)


class Calls:
    """Shapes of the ids a model is called with."""

    def __init__(self, model: nn.Module) -> None:
        self.shapes: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        assert not any(m.training or getattr(m, "gradient_checkpointing", False) for m in module.modules())
        self.shapes.append(tuple(kwargs["input_ids"].shape))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_modes_and_checkpointing_come_back(model: PreTrainedModel) -> None:
    """Also where modules differ; and meanwhile the cache is on: one token a call."""
    model.train()
    model.gradient_checkpointing_enable()
    frozen = next(m for m in model.modules() if isinstance(m, nn.Embedding))
    frozen.eval()

    def state() -> list[tuple[bool, Any]]:
        return [(m.training, getattr(m, "gradient_checkpointing", None)) for m in model.modules()]

    before, expected = state(), ours(model.eval(), PROMPTS)
    model.train()
    frozen.eval()
    calls = Calls(model)
    assert ours(model, PROMPTS) == expected
    assert state() == before
    assert calls.shapes[0][1] == max(map(len, PROMPTS))
    assert {width for _, width in calls.shapes[1:]} == {1}
    with pytest.raises(IndexError):
        ours(model, [[10_000]])
    assert state() == before
    assert all(p.grad is None for p in model.parameters())


def test_finished_rows_leave_the_batch(model: PreTrainedModel) -> None:
    eos = {EOS, common_token(model)}
    calls = Calls(model)
    rows = ours(model, PROMPTS[:4], eos_ids=eos)
    assert sum(batch for batch, _ in calls.shapes) == sum(len(row.ids) for row in rows)
    assert calls.shapes[-1][0] < 4


def test_the_global_random_state_is_left_alone(tiny_gpt2: ModelFactory) -> None:
    model = tiny_gpt2(resid_pdrop=0.5).train()
    before = torch.random.get_rng_state()
    rows = [ours(model, PROMPTS, uniforms=uniforms(0, 0, range(len(PROMPTS)), NEW)) for _ in range(2)]
    assert rows[0] == rows[1]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_absolute_positions_end(tiny_gpt2: ModelFactory, tiny_llama: ModelFactory) -> None:
    """GPT-2 stops where its table of positions does; rotary models go on."""
    prompts = [[5] * 3, [6] * 8, [7] * 7]
    rows = ours(tiny_gpt2(n_positions=8), prompts, eos_ids=())
    assert [len(row.ids) for row in rows] == [5, 0, 1]
    assert not any(row.ended for row in rows)
    with pytest.raises(ValueError, match="prompt 1 has 9 tokens; the model has 8"):
        ours(tiny_gpt2(n_positions=8), [[5], [6] * 9])
    assert len(ours(tiny_llama(max_position_embeddings=8), prompts[:1], eos_ids=())[0].ids) == NEW


def test_empty_batches_and_prompts(tiny_llama: ModelFactory) -> None:
    assert ours(tiny_llama(), []) == []
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        ours(tiny_llama(), [[4], []])


def test_autocast_is_the_callers(tiny_llama: ModelFactory) -> None:
    model, seen = tiny_llama(), []
    model.register_forward_hook(lambda _module, _args, output: seen.append(output.logits.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours(model, PROMPTS, uniforms=uniforms(0, 0, range(len(PROMPTS)), NEW))
    assert set(seen) == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_adapters_run(tiny_gpt2: ModelFactory) -> None:
    """A PEFT-wrapped model is called as such: its tokens are its own ``generate()``'s, not the base's."""
    peft = pytest.importorskip("peft")
    base = ours(tiny_gpt2(initializer_range=0.3), PROMPTS)
    config = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    wrapped = peft.get_peft_model(tiny_gpt2(initializer_range=0.3), config).eval()
    rows = ours(wrapped, PROMPTS)
    assert [row.ids for row in rows] == theirs(wrapped, PROMPTS, [EOS])
    assert rows != base


def test_noise_belongs_to_the_row() -> None:
    """The same numbers in any grouping and for any length; others for another seed, step or row."""
    whole = uniforms(1, 2, range(6), 40)
    assert whole.shape == (6, 40)
    assert whole.dtype == torch.float64
    assert torch.equal(uniforms(1, 2, [4, 1], 40), whole[[4, 1]])
    for length in (1, 15, 17):
        assert torch.equal(uniforms(1, 2, range(6), length), whole[:, :length])
    assert ((whole >= 0) & (whole < 1)).all()
    others = torch.cat([whole, uniforms(2, 1, range(6), 40), uniforms(1, 3, range(6), 40)])
    assert others.unique().numel() == others.numel()
    assert abs(uniforms(0, 0, range(500), 100).mean().item() - 0.5) < 5 / (12 * 50_000) ** 0.5
    # Pinned: a resumed run on another machine must draw the same.
    assert uniforms(0, 0, [0], 2).tolist() == [[0.7773033732247971, 0.9524549899608528]]


def test_stories_model_greedy(shared_data: Any) -> None:
    """A real model: padded batch and all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared_data / "models" / "stories260K"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [
        tokenizer(text)["input_ids"] for text in ("Once upon a time", "Tom", "The little dog was very")
    ]
    eos = [tokenizer.eos_token_id]
    assert [row.ids for row in ours(model, prompts, eos_ids=eos)] == theirs(model, prompts, eos)
