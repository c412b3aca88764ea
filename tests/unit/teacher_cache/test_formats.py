"""What each format keeps, held against the teacher that it comes from."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.head import Dense, Head, score
from distil.losses import Term
from distil.sparse import Sparse
from distil.teacher_cache.formats.base import FORMATS, CacheFormat, Size, format_of
from distil.teacher_cache.formats.hidden import Hidden, HiddenConfig
from distil.teacher_cache.formats.packing import join_ids, split_ids, upper_bytes
from distil.teacher_cache.formats.sampled import Sampled, SampledConfig
from distil.teacher_cache.formats.topk import TopK, TopKConfig, from_gaps, gaps_of
from distil.teacher_cache.store import join_rows, split_rows
from distil.types import REFERENCE, InputError

N, H, V, SHARED = 12, 6, 61, 57
LENGTHS = [3, 0, 5, 4]
ROWS = list(chain.from_iterable(repeat(row, n) for row, n in enumerate(LENGTHS)))
KEPT: list[CacheFormat[Any]] = [
    Hidden(HiddenConfig()),
    TopK(TopKConfig(k=5)),
    Sampled(SampledConfig(samples=7)),
]
each = pytest.mark.parametrize("kept", KEPT, ids=lambda kept: str(kept.config.name))


def teacher(seed: int = 0, n: int = N, vocabulary: int = V) -> Dense:
    chance = torch.Generator().manual_seed(seed)
    weight_VH = torch.randn(vocabulary, H, generator=chance)
    return Dense(torch.randn(n, H, generator=chance), Head(weight_VH, softcap=20.0))


def log_probabilities(said: Dense, temperature: float = 1.0, shared: int = SHARED) -> Tensor:
    """The teacher's own, in float64."""
    return (said.head.logits(said.hidden_NH)[:, :shared].double() / temperature).log_softmax(-1)


def gradient(signal: Dense | Sparse, term: Term, shared: int = SHARED) -> Tensor:
    """Along the student's logits."""
    chance = torch.Generator().manual_seed(77)
    logits_NV = torch.randn(N, V, generator=chance, dtype=torch.float64).requires_grad_()
    loss, _ = score(Dense(logits_NV, Head(None)), torch.zeros(N, dtype=torch.long), [term], signal, shared)
    loss.backward()
    assert logits_NV.grad is not None
    return logits_NV.grad


def read(kept: CacheFormat[Any], said: Dense) -> Dense | Sparse:
    return kept.decode(kept.encode(said, ROWS, SHARED), said.head)


def test_every_format_is_registered_under_its_name() -> None:
    assert list(FORMATS.entries()) == ["hidden", "none", "sampled", "topk"]
    for name, entry in FORMATS.entries().items():
        assert entry.config is not None
        assert format_of(entry.config()).config.name == name


@each
def test_rows_are_kept_one_by_one_and_joined_again(kept: CacheFormat[Any]) -> None:
    stored = kept.encode(teacher(), ROWS, SHARED)
    rows = split_rows(stored, LENGTHS)
    back = join_rows(rows)
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[name], stored[name]) for name in stored)


@each
def test_an_answer_does_not_hang_on_its_batch(kept: CacheFormat[Any]) -> None:
    one = teacher()
    said = Dense(one.head.logits(one.hidden_NH), Head(None))  # a product rounds otherwise for fewer rows
    whole, start = split_rows(kept.encode(said, ROWS, SHARED), LENGTHS), 0
    for row, n in enumerate(LENGTHS):
        if n:
            alone = Dense(said.hidden_NH[start : start + n], said.head)
            stored = kept.encode(alone, [row] * n, SHARED)
            assert all(torch.equal(stored[name], whole[row][name]) for name in stored)
        start += n


@each
def test_no_positions(kept: CacheFormat[Any]) -> None:
    stored = {name: tensor[:0] for name, tensor in kept.encode(teacher(), ROWS, SHARED).items()}
    signal = kept.decode(stored, teacher().head)
    assert len(signal.hidden_NH if isinstance(signal, Dense) else signal.ids_NK) == 0


@pytest.mark.parametrize("vocabulary", [600, 70_000, 300_000])
@pytest.mark.parametrize(
    "kept",
    [
        TopK(TopKConfig()),
        TopK(TopKConfig(k=3, temperatures=[1, 2, 4])),
        Hidden(HiddenConfig(dtype="bfloat16")),
    ],
    ids=["topk", "topk-3", "hidden"],
)
def test_the_size_that_is_told_is_the_size(kept: CacheFormat[Any], vocabulary: int) -> None:
    stored = kept.encode(teacher(n=N, vocabulary=vocabulary), ROWS, vocabulary)
    size = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    assert size == N * kept.bytes_per_token(Size(vocabulary, H, 4))


@pytest.mark.parametrize("vocabulary", [50_000, 151_936, 2**18])
def test_64_ids_take_at_most_220_bytes(vocabulary: int) -> None:
    assert TopK(TopKConfig(k=64)).bytes_per_token(Size(vocabulary, H, 4)) <= 220


# ---- hidden


def test_hidden_states_come_back_to_the_bit() -> None:
    said = teacher()
    signal = read(Hidden(HiddenConfig()), said)
    assert isinstance(signal, Dense)
    assert torch.equal(signal.hidden_NH, said.hidden_NH)
    assert signal.head is said.head


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_hidden_states_in_two_bytes_are_those_rounded(dtype: str) -> None:
    said = teacher()
    signal = read(Hidden(HiddenConfig(dtype=dtype)), said)
    assert isinstance(signal, Dense)
    assert torch.equal(signal.hidden_NH, said.hidden_NH.to(getattr(torch, dtype)))


# ---- top-k


@settings(max_examples=30, deadline=None)
@given(
    vocabulary=st.sampled_from([2**16, 2**16 + 1, 2**18, 2**18 + 1, 2**24]),
    k=st.integers(1, 9),
    data=st.data(),
)
def test_ids_of_any_vocabulary_come_back(vocabulary: int, k: int, data: st.DataObject) -> None:
    ids = st.integers(0, vocabulary - 1)
    ids_NK = torch.tensor(data.draw(st.lists(st.lists(ids, min_size=k, max_size=k), min_size=1, max_size=4)))
    stored = split_ids(ids_NK, vocabulary)
    assert torch.equal(join_ids(stored).long(), ids_NK)
    beside = sum(x.numel() for name, x in stored.items() if name != "ids_NK")
    assert beside == len(ids_NK) * upper_bytes(k, vocabulary)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6), k=st.integers(1, 70), spread=st.floats(1e-3, 10), start=st.floats(-10, -1e-6)
)
def test_rounded_gaps_do_not_add_up(seed: int, k: int, spread: float, start: float) -> None:
    """Each number is off by half a step of the widest gap at most, wherever it stands."""
    gaps_NK = torch.empty(5, k - 1).exponential_(generator=torch.Generator().manual_seed(seed)) * spread
    falling_NK = (start - torch.nn.functional.pad(gaps_NK, (1, 0)).cumsum(-1)).clamp(min=-39)
    stored = gaps_of(falling_NK)
    off_NK = (from_gaps(stored) - falling_NK).abs()
    assert (off_NK <= 1.1 * stored["span_N"].float()[:, None] / 255 + 2e-4).all()
    assert torch.equal(from_gaps(stored)[:, 0], falling_NK[:, 0])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, GeneralizedJSD(0.5)])
def test_top_k_and_the_rest_are_the_partition_of_the_full_distribution(
    divergence: Any, temperature: float
) -> None:
    """Against probabilities in float64, and ids that are picked by them; nothing is renormalised."""
    said = teacher(3)
    signal = read(TopK(TopKConfig(k=8)), said)
    assert isinstance(signal, Sparse)
    p_NV = log_probabilities(said, temperature).exp()
    known_NK, ids_NK = p_NV.topk(8)
    rest_N1 = 1 - known_NK.sum(-1, keepdim=True)
    wanted_NO = torch.cat([known_NK, rest_N1], -1)
    assert torch.equal(signal.ids_NK.long(), ids_NK)
    torch.testing.assert_close(signal.outcomes(temperature).double().exp(), wanted_NO, rtol=5e-3, atol=2e-4)
    exact = Sparse(ids_NK, log_probabilities(said).gather(-1, ids_NK), {temperature: rest_N1[:, 0].log()})
    if temperature != 1:  # the rest of a softened row counts beside numbers that are not normalised
        total_N = (log_probabilities(said) / temperature).logsumexp(-1)
        exact = Sparse(ids_NK, exact.log_probabilities_NK, {temperature: rest_N1[:, 0].log() + total_N})
    term = Term(1.0, REFERENCE, divergence, temperature)
    ours, theirs = gradient(signal, term), gradient(exact, term)
    assert (ours - theirs).norm() < 4e-3 * theirs.norm()


def test_all_ids_are_the_whole_teacher() -> None:
    said, term = teacher(3), Term(1.0, REFERENCE, forward_kl)
    full = gradient(said, term)
    ours = gradient(read(TopK(TopKConfig(k=200)), said), term)
    assert (ours - full).norm() < 4e-3 * full.norm()


def test_ids_that_the_teacher_rules_out_are_no_nan() -> None:
    logits_NV = torch.full((N, SHARED), -torch.inf)
    logits_NV[:, :3] = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
    signal = read(TopK(TopKConfig(k=8)), Dense(logits_NV, Head(None)))
    assert isinstance(signal, Sparse)
    for divergence in (forward_kl, GeneralizedJSD(0.5)):
        assert gradient(signal, Term(1.0, REFERENCE, divergence)).isfinite().all()


# ---- samples


@pytest.mark.parametrize("draws", ["systematic", "independent"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_of_samples_is_unbiased(draws: str, temperature: float) -> None:
    """The mean over seeds comes as near to the whole teacher's as so many draws can be expected to."""
    samples, seeds = 5, 400
    said, term = teacher(5), Term(1.0, REFERENCE, forward_kl, temperature)
    full = gradient(said, term)
    kept = [
        Sampled(SampledConfig(samples=samples, draws=draws, temperature=temperature, seed=seed))
        for seed in range(seeds)
    ]
    found = torch.stack([gradient(read(each, said), term) for each in kept])
    drawn = samples * seeds
    error_NV = 5 * (log_probabilities(said, temperature).exp() / drawn).sqrt() + 4 / drawn
    mean = found.mean(0)
    # A divergence at temperature T has a slope of 1 / T along the logits.
    assert ((mean - full).abs()[:, :SHARED] <= error_NV / temperature).all()
    assert (found[0] - full).norm() > 8 * (mean - full).norm()


def test_systematic_counts_are_within_one_of_what_is_expected() -> None:
    said, kept = teacher(5), Sampled(SampledConfig(samples=40, temperature=1.0))
    signal = read(kept, said)
    assert isinstance(signal, Sparse)
    share_NV = torch.zeros(N, SHARED)
    known = signal.ids_NK >= 0
    rows_N1 = torch.arange(N)[:, None].expand_as(known)
    share_NV[rows_N1[known], signal.ids_NK[known].long()] = signal.log_probabilities_NK[known].exp()
    torch.testing.assert_close(share_NV.sum(-1), torch.ones(N))
    assert ((40 * share_NV - 40 * log_probabilities(said).exp()).abs() < 1 + 1e-4).all()


def test_independent_draws_follow_the_teacher() -> None:
    """Chi-square of 4,000 draws against the true probabilities."""
    from scipy.stats import chi2

    said = Dense(teacher(9).hidden_NH[:1].expand(N, H), teacher(9).head)
    counts_V = torch.zeros(SHARED, dtype=torch.float64)
    for seed in range(20):
        kept = Sampled(SampledConfig(samples=200, draws="independent", temperature=1.0, seed=seed))
        stored = kept.encode(Dense(said.hidden_NH[:1], said.head), [seed], SHARED)
        counts_V.scatter_add_(0, stored["ids_M"].long(), stored["counts_M"].double())
    expected_V = 4000 * log_probabilities(said)[0].exp()
    common_V = expected_V >= 5
    observed = torch.cat([counts_V[common_V], counts_V[~common_V].sum()[None]])
    wanted = torch.cat([expected_V[common_V], expected_V[~common_V].sum()[None]])
    statistic = ((observed - wanted).square() / wanted).sum().item()
    assert statistic < chi2.ppf(0.9999, len(wanted) - 1)


def test_samples_of_a_large_vocabulary() -> None:
    said = teacher(2, vocabulary=70_000)
    stored = Sampled(SampledConfig()).encode(said, ROWS, 70_000)
    signal = Sampled(SampledConfig()).decode(stored, None)
    assert isinstance(signal, Sparse)
    assert int(signal.ids_NK.max()) > 2**16


# ---- what is refused


@pytest.mark.parametrize(
    ("kept", "term", "why"),
    [
        (TopK(TopKConfig()), Term(1.0, REFERENCE, forward_kl, 4.0), r"temperatures=\[1,2,4\]"),
        (Sampled(SampledConfig()), Term(1.0, REFERENCE, reverse_kl, 2.0), "reverse_kl is another divergence"),
        (Sampled(SampledConfig()), Term(1.0, REFERENCE, GeneralizedJSD(0.5), 2.0), "jsd is another"),
        (Sampled(SampledConfig()), Term(1.0, REFERENCE, forward_kl, 1.0), "teacher_cache.temperature=1"),
    ],
)
def test_what_a_format_cannot_say_is_refused_with_the_way_out(
    kept: CacheFormat[Any], term: Term, why: str
) -> None:
    import re

    refusal = kept.refusal(term)
    assert refusal is not None
    assert re.search(why, refusal)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, GeneralizedJSD(0.5)])
def test_what_a_format_can_say_is_not_refused(divergence: Any) -> None:
    for temperature in (1.0, 2.0):
        term = Term(1.0, REFERENCE, divergence, temperature)
        assert TopK(TopKConfig()).refusal(term) is None
        assert Hidden(HiddenConfig()).refusal(term) is None
    assert Sampled(SampledConfig()).refusal(Term(1.0, REFERENCE, forward_kl, 2.0)) is None


def test_a_top_k_says_of_which_divergences_it_tells_little() -> None:
    kept, size = TopK(TopKConfig()), Size(512, 64, 4)
    assert kept.caution(Term(1.0, REFERENCE, forward_kl), size) is None
    softened = Term(1.0, REFERENCE, forward_kl, 2.0)
    assert "at temperature 2 much may lie beyond" in str(kept.caution(softened, size))
    told = str(kept.caution(Term(1.0, REFERENCE, reverse_kl), size))
    assert "reverse_kl weighs what the student says" in told


def test_a_top_k_of_the_whole_vocabulary_leaves_nothing_to_the_rest_and_one_key() -> None:
    size, asked = Size(512, 64, 4), TopK(TopKConfig(k=100_000_000))
    kept = asked.cut(size.vocabulary)
    assert kept.settings() == TopK(TopKConfig(k=512)).settings()
    assert TopK(TopKConfig(k=64)).cut(size.vocabulary).config.k == 64
    for term in (Term(1.0, REFERENCE, reverse_kl), Term(1.0, REFERENCE, forward_kl, 2.0)):
        told = f"k=512 is the whole vocabulary: {kept.bytes_per_token(size):,.0f} bytes a token, where "
        assert kept.caution(term, size) == f"{told}teacher_cache=hidden takes 256"
        assert kept.caution(term, Size(512, 4096, 4)) is None, "hidden states would be larger"


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (TopKConfig, {"k": 0}),
        (TopKConfig, {"temperatures": []}),
        (TopKConfig, {"temperatures": [0.0]}),
        (SampledConfig, {"samples": 0}),
        (SampledConfig, {"samples": 256}),
        (SampledConfig, {"draws": "all"}),
        (SampledConfig, {"temperature": 0}),
        (HiddenConfig, {"dtype": "float64"}),
    ],
)
def test_values_out_of_range_name_their_key(config: Any, keys: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"teacher_cache.{next(iter(keys))}"):
        config(**keys)
