"""RECE's rows and rounds, by their worked numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from duo_unlearn.erasers.closed_form import Scales, change, sums_of
from duo_unlearn.erasers.rece import ReceSettings, revival, solve
from duo_unlearn.erasers.text_rows import TextRows

EYE = torch.eye(2, dtype=torch.float64)
E1, E2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
NONE = torch.zeros(0, 2)
ROWS = TextRows(E1, E2, NONE)
EDITED = torch.tensor([[0.5, 0.0], [0.5, 1.0]], dtype=torch.float64)
"""UCE's edit of I at λ 1, from e₁ to e₂."""


def close(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=0, atol=1e-4)


def test_an_edit_hides_nothing_from_who_may_write_embeddings() -> None:
    close(EYE + change(sums_of(ROWS), Scales(1.0, 1.0, 0.0)), EDITED.tolist())
    found = E1.double() @ revival(EDITED, EYE, 0.0).T
    close(found, [[2.0, -1.0]])
    close(found @ EDITED.T, E1.tolist())


def test_rounds_by_hand_do_not_converge() -> None:
    found = E1.double() @ revival(EDITED, EYE, 0.1).T
    close(found, [[1.3415, -0.6098]])
    after = EDITED + change(sums_of(ROWS._replace(erase=found)), Scales(0.1, 1.0, 0.0), EDITED)
    close(after, [[0.1039, 0.1801], [1.0546, 0.7479]])
    close(E1.double() @ revival(after, EYE, 0.1).T, [[-0.3789, 0.7026]])
    # The rounds as they are run, from the same first edit: λ₁ is 0.1 there too.
    first = EYE + change(sums_of(ROWS), Scales(0.1, 1.0, 0.0))
    again = E1.double() @ revival(first, EYE, 0.1).T
    moved = solve(sums_of(ROWS), {"one": torch.eye(2)}, ReceSettings(rounds=1))
    second = change(sums_of(ROWS._replace(erase=again)), Scales(0.1, 1.0, 0.0), first)
    torch.testing.assert_close(EYE + moved, first + second)


def test_without_an_edit_and_a_ridge_the_rows_are_the_concepts() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, generator=generator).double()
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(revival(eye, weight.T @ weight, 0.0), eye)


def test_one_matrix_for_all_layers_is_the_paper_s_sum_over_layers() -> None:
    generator = torch.Generator().manual_seed(1)
    layers = [torch.randn(size, 4, generator=generator).double() for size in (6, 3, 5)]
    rows = TextRows(*(torch.randn(count, 4, generator=generator).double() for count in (3, 3, 2)))
    settings = ReceSettings(rounds=1, weight=0.4, keep_scale=0.3, ridge=0.2)
    found = solve(sums_of(rows), {str(i): layer for i, layer in enumerate(layers)}, settings)

    # The equations as they stand, layer by layer.
    def edit(now: list[Tensor], erase: Tensor) -> list[Tensor]:
        inner = 0.4 * torch.eye(4).double() + erase.T @ erase + 0.3 * rows.keep.T @ rows.keep
        values = [(w @ rows.guide.T) @ erase + 0.3 * (w @ rows.keep.T) @ rows.keep for w in layers]
        return [(0.4 * w + value) @ torch.linalg.inv(inner) for w, value in zip(now, values, strict=True)]

    first = edit(layers, rows.erase)
    normal = 0.2 * torch.eye(4).double() + sum((w.T @ w for w in first), torch.zeros(4, 4).double())
    mixed = sum((w.T @ o for w, o in zip(first, layers, strict=True)), torch.zeros(4, 4).double())
    expected = edit(first, (torch.linalg.inv(normal) @ mixed @ rows.erase.T).T)
    for layer, after in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer @ (torch.eye(4).double() + found), after)


def test_kept_rows_go_back_to_the_original_and_do_not_drift() -> None:
    generator = torch.Generator().manual_seed(2)
    rows = TextRows(*(torch.randn(2, 4, generator=generator) for _ in range(3)))
    weight = {"one": torch.randn(8, 4, generator=generator)}
    moved = solve(sums_of(rows), weight, ReceSettings(rounds=20, keep_scale=1e6))
    torch.testing.assert_close(rows.keep.double() @ moved.T, torch.zeros(2, 4).double(), rtol=0, atol=1e-3)


def test_rounds_forget_what_was_erased_where_rows_fill_the_width_less_so_where_they_accumulate() -> None:
    generator = torch.Generator().manual_seed(3)
    guide = torch.randn(40, 8, generator=generator)
    erase = guide + torch.randn(8, generator=generator) + 0.1 * torch.randn(40, 8, generator=generator)
    rows, weight = TextRows(erase, guide, guide), {"one": torch.randn(16, 8, generator=generator)}

    def missed(moved: Tensor) -> float:
        """How far the concept's rows are from their guides, of how far they were."""
        return float((erase + erase @ moved.T.float() - guide).norm() / (erase - guide).norm())

    options = {"rounds": 3, "weight": 10.0, "keep_scale": 1.0}
    first = missed(change(sums_of(rows), Scales(10.0, 1.0, 1.0)))
    forgot, held = (
        missed(solve(sums_of(rows), weight, ReceSettings.model_validate(options | {"accumulate": accumulate})))
        for accumulate in (False, True)
    )
    assert first < 0.3
    assert forgot > first + 0.2
    assert held < first + 0.1
