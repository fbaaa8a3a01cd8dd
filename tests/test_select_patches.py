import itertools
import math

import pytest
import torch

from mga_kernels import ops
from mga_kernels.errors import InputError
from mga_kernels.ops import select_patches

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
OP = torch.ops.mga.select_patches.default


def expected(mask, k, order):
    """The contract again, with Python's sort: value, then lower index, NaN last."""
    rows = []
    for image in mask.flatten(1).double().tolist():
        sign = 1 if order == "smallest" else -1

        def rank(cell, image=image, sign=sign):
            value = image[cell]
            return (1, 0.0, cell) if math.isnan(value) else (0, sign * value, cell)

        rows.append(sorted(sorted(range(len(image)), key=rank)[:k]))
    return torch.tensor(rows, dtype=torch.int32).reshape(len(mask), min(k, mask[0].numel()) if len(mask) else 0)


def run(backend, mask, *arguments):
    indices = select_patches(mask.to(backend.device), *arguments)
    assert ops.last_backend("select_patches") == backend.name
    assert indices.dtype == torch.int32
    return indices.cpu()


def mask_of(kind, shape, generator):
    mask = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "ties":
        mask = (2 * mask).round() / 2
        mask[mask == 0] *= torch.tensor([1.0, -1.0]).repeat(mask.numel())[: int((mask == 0).sum())]
    elif kind == "constant":
        mask.fill_(0.25)
    elif kind == "special":
        values = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-40, 6e4, -6e4], dtype=torch.float64)
        mask = values[torch.randint(len(values), shape, generator=generator)]
    return mask


@pytest.mark.parametrize("order", ["largest", "smallest"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["distinct", "ties", "constant", "special"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (1, 33, 70), (2, 1, 4)])
def test_equals_stable_sort(backend, order, dtype, kind, shape, generator):
    mask = mask_of(kind, shape, generator).to(dtype)
    cells = shape[1] * shape[2]
    for k in {0, 1, cells // 3, cells - 1, cells, cells + 5}:
        torch.testing.assert_close(run(backend, mask, k, order), expected(mask, k, order), rtol=0, atol=0)


def test_negative_zero_ties_positive_zero(backend):
    mask = torch.tensor([[[-0.0, 0.0, -0.0, 0.0]]])
    for order in ("largest", "smallest"):
        assert run(backend, mask, 2, order).tolist() == [[0, 1]]


def test_nan_is_chosen_last_in_both_orders(backend):
    mask = torch.tensor([[[torch.nan, -torch.inf, torch.inf, torch.nan]]])
    for order in ("largest", "smallest"):
        assert run(backend, mask, 2, order).tolist() == [[1, 2]]
        assert run(backend, mask, 3, order).tolist() == [[0, 1, 2]]


def test_strides_do_not_matter(backend, generator):
    mask = torch.randn(2, 9, 14, generator=generator)
    for view in (mask.transpose(1, 2), mask[:, ::2, 1::3], mask.expand(2, 9, 14).flip(2)):
        torch.testing.assert_close(run(backend, view, 20), expected(view, 20, "largest"), rtol=0, atol=0)


def test_batch_equals_single_images(backend, generator):
    mask = torch.randn(4, 13, 11, generator=generator)
    for order in ("largest", "smallest", "random"):
        together = run(backend, mask, 40, order, 7)
        for i in range(4):
            assert torch.equal(together[i : i + 1], run(backend, mask[i : i + 1], 40, order, 7))


def test_no_images(backend):
    assert run(backend, torch.empty(0, 3, 4), 5).shape == (0, 5)


def hash_in_python(cell, seed):
    def mix(x):
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x31848BAB % 2**32
        return x ^ (x >> 16)

    return mix(mix((cell + 0x9E3779B9) % 2**32) ^ mix((seed + 0x9E3779B9) % 2**32))


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31, 2**32 - 1])
def test_random_is_the_hash(backend, seed):
    cells = 6 * 35
    ranking = sorted(range(cells), key=lambda cell: -hash_in_python(cell, seed))
    got = run(backend, torch.full((2, 6, 35), torch.nan), 50, "random", seed)
    assert got.tolist() == [sorted(ranking[:50])] * 2


def test_random_is_uniform_and_depends_on_the_seed(backend):
    chosen = torch.zeros(400)
    draws = [run(backend, torch.zeros(1, 20, 20), 100, "random", seed)[0].long() for seed in range(400)]
    for draw in draws:
        chosen[draw] += 1
    # Each cell is drawn Binomial(400, 1/4): mean 100, standard deviation 8.7.
    assert chosen.min() > 60
    assert chosen.max() < 140
    assert chosen.std() < 11
    overlap = torch.tensor([len(set(a.tolist()) & set(b.tolist())) for a, b in itertools.pairwise(draws)])
    assert abs(overlap.float().mean() - 25) < 1.5


def test_a_mask_with_gradient_still_runs_natively(free_choice):
    mask = torch.randn(1, 4, 5, requires_grad=True)
    assert torch.equal(select_patches(mask, 6), expected(mask.detach(), 6, "largest"))
    assert ops.last_backend("select_patches") == "cpu"


def test_opcheck(backend):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    for order, k in (("largest", 4), ("random", 100)):
        results = torch.library.opcheck(OP, (torch.randn(2, 4, 5, device=backend.device), k, order, 3))
        assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    torch.compiler.reset()
    compiled = torch.compile(
        lambda mask: select_patches(mask * 2, 10, "largest") + 1, fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    for shape in ((2, 5, 6), (2, 7, 8), (2, 2, 3)):
        mask = torch.randn(shape, generator=generator)
        assert torch.equal(compiled(mask.to(backend.device)).cpu() - 1, expected(2 * mask, 10, "largest"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), 1), r"mask must be a floating tensor \(B, Hp, Wp\), got \(2, 3\)"),
        ((torch.zeros(1, 2, 3, dtype=torch.int32), 1), "floating"),
        (([[1.0]], 1), "got list"),
        ((torch.zeros(1, 2, 3), -1), "k must be a whole number of 0 or more, got -1"),
        ((torch.zeros(1, 2, 3), 1.5), "k must be a whole number"),
        ((torch.zeros(1, 2, 3), True), "k must be a whole number"),
        ((torch.zeros(1, 2, 3), 1, "best"), "order 'best' does not exist; choose one of largest"),
        ((torch.zeros(1, 2, 3), 1, "random", -1), "seed"),
        ((torch.zeros(1, 2, 3), 1, "random", 2**32), "seed must be below"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        select_patches(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), 1, "largest", 0), "mask must be"),
        ((torch.zeros(1, 2, 3, dtype=torch.int32), 1, "largest", 0), "dtype"),
        ((torch.zeros(1, 2, 3), -1, "largest", 0), "k is -1"),
        ((torch.zeros(1, 2, 3), 1, "best", 0), "order 'best'"),
        ((torch.zeros(1, 2, 3), 1, "random", -1), "seed"),
    ],
)
def test_the_torch_operator_checks_by_itself(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        OP(*arguments)
