"""The chunked head against whole logits in float64 and autograd's own gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import kl_div

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.fused import BLOCK
from distil.head import Dense, Head, log_probabilities, score
from distil.losses import Term, cross_entropy
from distil.types import REFERENCE
from tests.tensors import Watch

N, H, V, SHARED = 37, 16, 61, 53
KD = (Term(0.3, REFERENCE, cross_entropy), Term(2.8, REFERENCE, forward_kl, 2.0))
EVERY = (
    Term(0.5, REFERENCE, cross_entropy),
    Term(1.0, REFERENCE, forward_kl, 2.0),
    Term(0.7, REFERENCE, reverse_kl),
    Term(1.5, REFERENCE, GeneralizedJSD(0.1), 2.0),
    Term(0.25, REFERENCE, forward_kl, 0.5),
)


def signal(
    seed: int, dtype: torch.dtype = torch.float64, n: int = N, v: int = V, bias: bool = True, **head: Any
) -> Dense:
    """A random signal whose tensors want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return Dense(draw(n, H), Head(draw(v, H), draw(v) if bias else None, **head))


def targets(n: int = N) -> Tensor:
    return torch.randint(V, (n,), generator=torch.Generator().manual_seed(9))


def parameters(dense: Dense) -> list[Tensor]:
    three = (dense.hidden_NH, dense.head.weight_VH, dense.head.bias_V)
    return [x for x in three if x is not None and x.requires_grad]


def whole_logits(dense: Dense) -> Tensor:
    """The head in float64, all positions at once."""
    head = dense.head
    logits = dense.hidden_NH.double()
    if head.weight_VH is not None:
        logits = logits @ head.weight_VH.double().T
    if head.bias_V is not None:
        logits = logits + head.bias_V.double()
    logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def reference(
    student: Dense, targets_N: Tensor, terms: tuple[Term, ...], teacher: Dense, shared: int = SHARED
) -> tuple[Tensor, Tensor]:
    """``score`` from its definition, with torch's own loss functions."""
    student_NV, teacher_NV = whole_logits(student), whole_logits(teacher).detach()
    sums = []
    for term in terms:
        if term.score is cross_entropy:
            sums.append(torch_cross_entropy(student_NV, targets_N, reduction="sum"))
            continue
        p, q = ((x[:, :shared] / term.temperature).softmax(-1) for x in (teacher_NV, student_NV))
        if isinstance(term.score, GeneralizedJSD):
            w = term.score.weight
            mixture = (w * p + (1 - w) * q).log()
            sums.append(
                w * kl_div(mixture, p, reduction="sum") + (1 - w) * kl_div(mixture, q, reduction="sum")
            )
        else:
            first, second = (p, q) if term.score is forward_kl else (q, p)
            sums.append(kl_div(second.log(), first, reduction="sum"))
    sums_K = torch.stack(sums)
    weights = torch.tensor([term.weight for term in terms], dtype=torch.float64)
    return sums_K @ weights, sums_K


def check(student: Dense, teacher: Dense, terms: tuple[Term, ...], **close: Any) -> None:
    """Value, sums and gradients of ``score`` equal the reference's, whatever the loss is divided by."""
    for count in (1, 37):
        loss, sums_K = score(student, targets(), terms, teacher, SHARED, chunk=8)
        expected, expected_K = reference(student, targets(), terms, teacher)
        torch.testing.assert_close(loss.double(), expected, **close)
        torch.testing.assert_close(sums_K.double(), expected_K, **close)
        assert not sums_K.requires_grad
        ours = torch.autograd.grad(loss / count, parameters(student))
        theirs = torch.autograd.grad(expected / count, parameters(student))
        for parameter, a, b in zip(parameters(student), ours, theirs, strict=True):
            assert a.dtype == parameter.dtype
            torch.testing.assert_close(a.double(), b.double(), **close)


@pytest.mark.parametrize("term", EVERY, ids=lambda term: f"{term.name}-T{term.temperature}")
def test_each_term_in_float64(term: Term) -> None:
    check(signal(0), signal(1, v=V + 4), (term,), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("head", [{}, {"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 5.0}])
def test_all_terms_at_once_with_scale_and_softcap(head: dict[str, float]) -> None:
    check(signal(0, **head), signal(1, **head), EVERY, rtol=1e-9, atol=1e-11)


def test_float32() -> None:
    check(signal(0, torch.float32), signal(1, torch.float32), EVERY, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype: torch.dtype) -> None:
    """Only the products are half precision: from the same logits, values are right to float32."""
    student, teacher = signal(0, dtype), signal(1, dtype)
    loss, sums_K = score(student, targets(), EVERY, teacher, SHARED, chunk=8)
    assert loss.dtype == sums_K.dtype == torch.float32
    # A bfloat16 or float16 product is off by 2**-8 or 2**-11 of logits of size 4 sqrt(H) and less.
    check(student, teacher, EVERY, rtol=0.05, atol=0.5 if dtype == torch.bfloat16 else 0.1)
    plain = [
        Dense(torch.nn.functional.linear(x.hidden_NH, x.head.weight_VH, x.head.bias_V).detach(), Head(None))
        for x in (student, teacher)
    ]
    _, expected_K = reference(plain[0], targets(), EVERY, plain[1])
    torch.testing.assert_close(sums_K.double(), expected_K, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "backward"), [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)]
)
def test_products_are_in_the_models_dtype(dtype: torch.dtype, backward: torch.dtype) -> None:
    """But for float16's gradients: small slopes would underflow before any loss scale has seen them."""
    with Watch() as watch:
        score(signal(0, dtype), targets(), EVERY, signal(1, dtype), SHARED)
    assert watch.products == [dtype, dtype, backward, backward]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_slope_of_all_terms_is_rounded_once(dtype: torch.dtype) -> None:
    """Through a head that changes nothing, the gradient is the float64 one to half a unit of its last bit."""
    hidden_NV, teacher_NV = (whole_logits(signal(seed)).detach().to(dtype) for seed in (0, 1))
    same = Head(torch.eye(V, dtype=dtype))
    student, teacher = Dense(hidden_NV.clone().requires_grad_(), same), Dense(teacher_NV, same)
    (ours,) = torch.autograd.grad(score(student, targets(), EVERY, teacher, SHARED)[0], student.hidden_NH)
    exact = Dense(hidden_NV.double().requires_grad_(), Head(None))
    expected, _ = reference(exact, targets(), EVERY, Dense(teacher_NV, Head(None)))
    (theirs,) = torch.autograd.grad(expected, exact.hidden_NH)
    torch.testing.assert_close(ours.double(), theirs, rtol=torch.finfo(dtype).eps / 2, atol=1e-6)


def test_sums_over_positions_are_float32() -> None:
    """4096 equal addends: a sum in bfloat16 stands still at 256 of them."""
    one, n = signal(0, torch.bfloat16, n=1), 4096
    many = Dense(one.hidden_NH.detach().expand(n, H).clone().requires_grad_(), one.head)
    found = []
    for student in (one, many):
        ids = torch.zeros(len(student.hidden_NH), dtype=torch.long)
        loss, _ = score(student, ids, KD[:1], None, V, chunk=8)
        found.append(torch.autograd.grad(loss, parameters(student)[1:]))
    for single, summed in zip(*found, strict=True):
        torch.testing.assert_close(summed.double(), n * single.double(), rtol=2**-6, atol=0)


def test_under_autocast_a_bias_gets_the_float32_sum_of_bfloat16_slopes() -> None:
    student = signal(0, torch.float32)
    assert student.head.bias_V is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = score(student, targets(), KD[:1], None, SHARED)
        product_NV = torch.nn.functional.linear(*parameters(student))
    (ours,) = torch.autograd.grad(loss, student.head.bias_V)
    exact = product_NV.detach().double().requires_grad_()
    torch_cross_entropy(exact, targets(), reduction="sum").mul(KD[0].weight).backward()
    assert exact.grad is not None
    torch.testing.assert_close(ours.double(), exact.grad.bfloat16().double().sum(0), rtol=1e-5, atol=1e-6)


def test_autocast_decides_the_product_alone() -> None:
    student, teacher = signal(0, torch.float32), signal(1, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, sums_K = score(student, targets(), EVERY, teacher, SHARED, chunk=8)
        (rows,) = log_probabilities(student, None, targets(), chunk=N)
    gradients = torch.autograd.grad(loss, parameters(student))
    assert {loss.dtype, sums_K.dtype, rows[0].dtype} == {torch.float32}
    halved, halved_teacher = (
        Dense(
            x.hidden_NH.bfloat16(),
            Head(*(y.bfloat16() for y in (x.head.weight_VH, x.head.bias_V) if y is not None)),
        )
        for x in (student, teacher)
    )
    _, same_K = score(halved, targets(), EVERY, halved_teacher, SHARED, chunk=8)
    torch.testing.assert_close(sums_K, same_K)
    exact, _ = reference(student, targets(), EVERY, teacher)
    for ours, theirs in zip(gradients, torch.autograd.grad(exact, parameters(student)), strict=True):
        assert ours.dtype == torch.float32
        assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("autocast", [False, True])
def test_small_slopes_survive_float16(autocast: bool) -> None:
    """Slopes of 1e-9 vanish in float16 before a loss scale; here the scale comes first."""
    dtype = torch.float32 if autocast else torch.float16
    student, teacher = signal(0, dtype), signal(1, dtype)
    tiny = tuple(dataclasses.replace(term, weight=term.weight * 1e-9) for term in EVERY)
    with torch.autocast("cpu", dtype=torch.float16, enabled=autocast):
        loss, _ = score(student, targets(), tiny, teacher, SHARED)
    scaled = torch.autograd.grad(loss * 2.0**16, parameters(student))
    plain, _ = reference(student, targets(), EVERY, teacher)
    for ours, theirs in zip(scaled, torch.autograd.grad(plain, parameters(student)), strict=True):
        assert torch.cosine_similarity(ours.flatten().double(), theirs.flatten().double(), dim=0) > 0.999


def test_formulas_run_in_float32_under_autocast() -> None:
    """A user's divergence may multiply matrices: autocast is for the model's products."""

    def squared(teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
        gap_NV = teacher_NV.exp() - student_NV.exp()
        assert (gap_NV @ gap_NV.T).dtype == torch.float32
        return (gap_NV @ gap_NV.T).diagonal()

    student, teacher = signal(0, torch.float32), signal(1, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = score(student, targets(), [Term(1.0, REFERENCE, squared)], teacher, SHARED)
    assert loss > 0


@pytest.mark.parametrize("chunk", [1, 5, N, 1000])
def test_chunks_do_not_show(chunk: int) -> None:
    student, teacher = signal(0), signal(1)
    loss, sums_K = score(student, targets(), EVERY, teacher, SHARED, chunk)
    whole, whole_K = score(student, targets(), EVERY, teacher, SHARED)
    torch.testing.assert_close(sums_K, whole_K)
    for a, b in zip(
        torch.autograd.grad(loss, parameters(student)),
        torch.autograd.grad(whole, parameters(student)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_gradcheck() -> None:
    student, teacher = signal(0, n=3, v=11), signal(1, n=3, v=11)
    ids = torch.tensor([0, 5, 10])

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        head = Head(weight, bias, scale=0.5, softcap=4.0)
        return score(Dense(hidden, head), ids, EVERY, teacher, 9, chunk=2)[0]

    assert torch.autograd.gradcheck(loss, parameters(student))


def test_plain_road_gives_the_same_numbers() -> None:
    """Logits in place of hidden states: same loss, and the gradient reaches what made them."""
    student, teacher = signal(0, scale=0.5), signal(1)
    fused, fused_K = score(student, targets(), EVERY, teacher, SHARED, chunk=8)
    logits, teacher_logits = (Dense(whole_logits(x), Head(None)) for x in (student, teacher))
    plain, plain_K = score(logits, targets(), EVERY, teacher_logits, SHARED, chunk=8)
    torch.testing.assert_close(fused_K, plain_K)
    for a, b in zip(
        torch.autograd.grad(fused, parameters(student)),
        torch.autograd.grad(plain, parameters(student)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("frozen", ["weight", "body", "bias", "nothing"])
def test_only_what_wants_a_gradient_gets_one(frozen: str) -> None:
    """What is frozen gets no gradient and costs no product; the teacher never gets any."""
    student, teacher = signal(0), signal(1)
    three = {"body": student.hidden_NH, "weight": student.head.weight_VH, "bias": student.head.bias_V}
    if frozen in three:
        three[frozen] = three[frozen].detach()  # type: ignore[union-attr]
    student = Dense(three["body"], Head(three["weight"], three["bias"]))  # type: ignore[arg-type]
    check(student, teacher, EVERY, rtol=1e-9, atol=1e-11)
    with Watch() as watch:
        loss, _ = score(student, targets(), EVERY, teacher, SHARED)
        loss.backward()
    # One for both models' logits, and one for each gradient that is wanted.
    backward = sum(x is not None and x.requires_grad for x in (three["body"], three["weight"]))
    assert len(watch.products) == 2 + backward
    assert all(x.grad is None for x in parameters(teacher))
    assert all((x is not None and x.grad is not None) == (name != frozen) for name, x in three.items())


def test_without_gradient() -> None:
    student, teacher = signal(0), signal(1)
    with torch.no_grad():
        loss, sums_K = score(student, targets(), EVERY, teacher, SHARED)
    assert not loss.requires_grad
    torch.testing.assert_close(sums_K, score(student, targets(), EVERY, teacher, SHARED)[1])


def test_tied_weight_gets_both_gradients() -> None:
    """The embedding's share comes through the hidden states, the head's directly; autograd adds them."""
    weight = signal(0).head.weight_VH
    assert weight is not None
    teacher, ids = signal(1), targets()
    student = Dense(torch.tanh(weight[ids]), Head(weight))
    (ours,) = torch.autograd.grad(score(student, ids, EVERY, teacher, SHARED)[0], weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(reference(student, ids, EVERY, teacher)[0], weight)
    torch.testing.assert_close(ours, theirs)


def test_terms_of_weight_0_cost_nothing_and_keep_their_place() -> None:
    def never(teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
        raise AssertionError("computed")

    student = signal(0)
    terms = (Term(0, REFERENCE, never), Term(2, REFERENCE, cross_entropy))
    loss, sums_K = score(student, targets(), terms, None, SHARED)
    assert sums_K[0] == 0
    expected = torch_cross_entropy(whole_logits(student), targets(), reduction="sum")
    torch.testing.assert_close(loss, 2 * expected)
    with pytest.raises(ValueError, match="teacher"):
        score(student, targets(), KD, None, SHARED)


def test_alpha_0_is_cross_entropy_and_alpha_1_is_divergence() -> None:
    student, teacher = signal(0), signal(1)
    ce, kl = KD
    for weights in ((1.0, 0.0), (0.0, 4.0)):
        terms = tuple(
            dataclasses.replace(term, weight=weight) for term, weight in zip((ce, kl), weights, strict=True)
        )
        loss, _ = score(student, targets(), terms, teacher, SHARED)
        torch.testing.assert_close(loss, reference(student, targets(), terms, teacher)[0])


def test_no_scored_position_is_0_with_a_live_graph() -> None:
    student, teacher = signal(0, n=0), signal(1, n=0)
    loss, sums_K = score(student, targets(0), EVERY, teacher, SHARED)
    assert loss.item() == 0
    assert sums_K.tolist() == [0] * len(EVERY)
    loss.backward()
    assert all(x.grad is not None and x.grad.count_nonzero() == 0 for x in parameters(student))


@pytest.mark.parametrize("plain", [False, True])
def test_nan_in_unscored_positions(plain: bool) -> None:
    """Selecting, not masking: what is not scored may be NaN and the gradient of all stays finite."""
    student, teacher = signal(0), signal(1)
    made_from = (whole_logits(student) if plain else student.hidden_NH).detach()
    unscored = torch.arange(N) % 3 == 0
    made_from[unscored] = torch.nan
    made_from.requires_grad_()
    selected = Dense(made_from[~unscored], Head(None) if plain else student.head)
    teacher = Dense(teacher.hidden_NH[~unscored], teacher.head)
    loss, _ = score(selected, targets()[~unscored], EVERY, teacher, SHARED, chunk=8)
    (gradient,) = torch.autograd.grad(loss, made_from)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient[unscored].count_nonzero() == 0


def test_zero_at_equality_in_value_and_gradient() -> None:
    student = signal(0, torch.float32)
    terms = tuple(term for term in EVERY if term.needs_teacher)
    loss, sums_K = score(student, targets(), terms, student, SHARED, chunk=8)
    assert (sums_K.abs() < 1e-5).all()
    for gradient in torch.autograd.grad(loss, parameters(student)):
        assert gradient.abs().max() < 1e-5


def test_rows_of_padded_vocabularies() -> None:
    """Ids beyond the shared ones are cut before the softmax: what they hold changes no divergence."""
    student, teacher = signal(0), signal(1, v=V + 7)
    terms = tuple(term for term in EVERY if term.needs_teacher)
    _, sums_K = score(student, targets(), terms, teacher, SHARED)
    for dense, rows in ((student, slice(SHARED, None)), (teacher, slice(SHARED, None))):
        assert dense.head.weight_VH is not None
        with torch.no_grad():
            dense.head.weight_VH[rows] = 100.0
    torch.testing.assert_close(score(student, targets(), terms, teacher, SHARED)[1], sums_K)
    with pytest.raises(AssertionError, match="shared"):
        score(student, targets(), terms, teacher, V + 1)


def test_ids_ruled_out_on_both_sides() -> None:
    """A bias of -inf (the same ids on both sides) leaves all finite, and the rest as without them."""
    student, teacher = signal(0), signal(1)
    kept = torch.arange(V) % 5 != 2
    ids = torch.arange(V)[kept][torch.arange(N)]

    def cut(dense: Dense, rows: Tensor | slice, bias: Tensor) -> Dense:
        assert dense.head.weight_VH is not None
        return Dense(dense.hidden_NH, Head(dense.head.weight_VH[rows], bias))

    def barred(dense: Dense, shared: int) -> list[Tensor]:
        loss, sums_K = score(dense, ids if shared == V else remapped, EVERY, other[shared], shared, chunk=8)
        return [loss.detach(), sums_K, *torch.autograd.grad(loss, parameters(student)[:2])]

    remapped = kept.cumsum(0)[ids] - 1
    minus = torch.zeros(V, dtype=torch.float64).masked_fill(~kept, -torch.inf)
    few = int(kept.sum())
    other = {V: cut(teacher, slice(None), minus), few: cut(teacher, kept, minus[kept])}
    found = barred(cut(student, slice(None), minus), V)
    wanted = barred(cut(student, kept, minus[kept]), few)
    assert all(x.isfinite().all() for x in found)
    torch.testing.assert_close(found, wanted)


def test_an_id_that_only_the_student_rules_out_makes_the_loss_infinite() -> None:
    """Not NaN: a KL says what it means, and a JSD stays finite with its gradient."""
    student, teacher = signal(0), signal(1)
    bias = torch.zeros(V, dtype=torch.float64)
    bias[3] = -torch.inf
    barred = Dense(student.hidden_NH, Head(student.head.weight_VH, bias))
    _, sums_K = score(barred, torch.zeros(N, dtype=torch.long), EVERY, teacher, SHARED)
    assert [bool(x) for x in sums_K.isinf()] == [x.score is forward_kl for x in EVERY]
    jsd = [Term(1.0, REFERENCE, GeneralizedJSD(0.5))]
    loss, _ = score(barred, torch.zeros(N, dtype=torch.long), jsd, teacher, SHARED)
    assert loss.isfinite()
    assert all(x.isfinite().all() for x in torch.autograd.grad(loss, parameters(student)[:2]))


def test_cross_entropy_is_over_the_full_vocabulary() -> None:
    student = signal(0)
    _, sums_K = score(student, torch.full((N,), V - 1), KD[:1], None, SHARED)
    expected = torch_cross_entropy(whole_logits(student), torch.full((N,), V - 1), reduction="sum")
    torch.testing.assert_close(sums_K[0], expected)


def test_each_head_is_multiplied_once_and_no_whole_logits_exist() -> None:
    """The largest tensor is a chunk's or the weight's; one product forward, and two for the gradients."""
    n, v, chunk = 512, 300, 32
    student, teacher = (signal(seed, torch.float32, n=n, v=v, bias=False) for seed in (0, 1))
    ids = targets(n)
    with Watch() as watch:
        loss, _ = score(student, ids, EVERY, teacher, v, chunk)
        loss.backward()
    assert max(watch.sizes) == max(chunk * v, v * H, n * H) < n * v
    assert len(watch.products) == 4 * (n // chunk)


@pytest.mark.parametrize("bias", [False, True])
def test_later_chunks_use_the_memory_of_the_first(bias: bool) -> None:
    """Fresh pages would cost as much as the arithmetic."""
    v, chunk = 300, 32

    def large(chunks: int) -> int:
        n = chunks * chunk
        student, teacher = (signal(seed, torch.float32, n=n, v=v, bias=bias) for seed in (0, 1))
        with Watch() as watch:
            score(student, targets(n), EVERY, teacher, v, chunk)
        return sum(size >= chunk * v for size in watch.fresh)

    assert large(8) == large(1) > 0


def test_slopes_are_written_over_the_products() -> None:
    """Neither copied there, nor computed in blocks that a cache could not hold."""
    n, v = 64, 8192
    student, teacher = (signal(seed, torch.float32, n=n, v=v) for seed in (0, 1))
    with Watch() as watch:
        score(student, targets(n), EVERY, teacher, v)
    assert [size for size in watch.fresh if size > BLOCK] == [n * v] * 2
    assert max(watch.copies) < v


def test_hidden_states_take_the_weights_dtype() -> None:
    student, ids = signal(0, torch.float32), targets()
    assert student.head.weight_VH is not None
    weight, bias = student.head.weight_VH.detach().bfloat16(), student.head.bias_V
    mixed = Dense(student.hidden_NH, Head(weight, bias))
    halved = Dense(student.hidden_NH.detach().bfloat16(), Head(weight, bias.detach().bfloat16()))
    assert torch.equal(mixed.head.logits(mixed.hidden_NH), halved.head.logits(halved.hidden_NH))
    loss, sums_K = score(mixed, ids, EVERY, signal(1), SHARED)
    torch.testing.assert_close(sums_K, score(halved, ids, EVERY, signal(1), SHARED)[1])
    assert torch.autograd.grad(loss, mixed.hidden_NH)[0].dtype == torch.float32


def test_built_in_terms_want_no_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, grad = signal(0), signal(1), torch.autograd.grad

    def asked(*_: object) -> None:
        raise RuntimeError("autograd was asked")

    monkeypatch.setattr(torch.autograd, "grad", asked)
    loss, _ = score(student, targets(), EVERY, teacher, SHARED)
    assert all(x.isfinite().all() for x in grad(loss, parameters(student)))


def test_log_probabilities_for_evaluation() -> None:
    student, teacher = signal(0, torch.float32), signal(1, torch.float32, v=V + 4)
    chunks = list(log_probabilities(student, teacher, targets(), chunk=10))
    assert [len(ids) for _, _, ids in chunks] == [10, 10, 10, 7]
    ours = torch.cat([x for x, _, _ in chunks])
    theirs = torch.cat([x for _, x, _ in chunks if x is not None])
    assert torch.equal(torch.cat([ids for _, _, ids in chunks]), targets())
    assert not ours.requires_grad
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), whole_logits(student).log_softmax(-1), rtol=1e-5, atol=1e-5)
    # Slicing log-probabilities and normalising again is slicing the logits.
    torch.testing.assert_close(
        theirs[:, :SHARED].log_softmax(-1).double(),
        whole_logits(teacher)[:, :SHARED].log_softmax(-1),
        rtol=1e-5,
        atol=1e-5,
    )
    assert next(iter(log_probabilities(student, None, targets())))[1] is None
    assert list(log_probabilities(signal(0, n=0), None, targets(0))) == []
