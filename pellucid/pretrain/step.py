"""One optimizer step: gradients of all micro-batches of all processes, weighted by trained tokens, and the update.

Differs from the textbook in how much it reads at once: of a batch that would leave more than a gigabyte for the way
back, a CPU reads equal parts, one after another, which is no slower. And in what it does when something goes wrong.
Where memory runs out, in one process or in one of many, all try again with half as many examples at once, and nothing
else changes. Where the loss is no number, or jumps, nothing is moved and `TroubleError` is raised.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from pellucid.compute import is_out_of_memory
from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.adafactor import Adafactor
from pellucid.pretrain.checkpoint import random_state, set_random_state
from pellucid.pretrain.distributed import Shared, world
from pellucid.pretrain.optim import rate_scale, set_rate
from pellucid.pretrain.task import Task, cut, pieces, rows_of
from pellucid.runtime import PellucidError, inform, problem

KEPT = 56  # bytes that a token leaves for the way back, for each number of its vector in each block
AT_ONCE = 2**30  # of these that a CPU takes


class TroubleError(Exception):
    """A step whose loss cannot be right; the message says why. The weights are as they were before it."""


def train_step(
    model: nn.Module,
    task: Task,
    optimizers: list[torch.optim.Optimizer],
    config: FitConfig,
    step: int,
    share: float,
    shared: Shared | None = None,
    rows: int | None = None,
    refuse: Callable[[float], str] = lambda loss: "",
) -> dict[str, Any]:
    """Move the model once, by the mean loss over all trained tokens of the step. `share` of the run is done.

    `rows` is how many examples are read at once (None: as configured; 0: as memory suggests); `refuse` says what is
    wrong with a loss, if anything is.
    """
    model.train()
    shared = shared or Shared(model)
    rows = config.micro_batch_size if rows is None else rows
    short = matrices_of_adafactor(model, optimizers) if config.dtype == "bfloat16" else []
    total, count, seen, rows = gradients_within_memory(shared, task, config, step, rows, short)
    scale = rate_scale(share, config)
    set_rate(optimizers, scale)
    mean, grad_norm = total / max(count, 1), 0.0
    if count:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        shares = count / world().size  # processes have averaged their gradients, not added them up
        grad_norm = shared.norm(gradients) / shares
        reason = "" if math.isfinite(mean) and math.isfinite(grad_norm) else f"the loss is {mean}"
        if math.isfinite(mean) and not math.isfinite(grad_norm):
            reason = f"the gradient's norm is {grad_norm}"
        if reason := reason or refuse(mean):
            clear_gradients(model)
            raise TroubleError(reason)
        factor = min(1.0, config.clip / max(grad_norm, 1e-12)) / shares
        for optimizer in optimizers:
            step_scaled(optimizer, factor)
    clear_gradients(model)
    record = {"loss": mean, "lr": config.lr * scale, "grad_norm": grad_norm}
    return {**record, "count": int(count), "seen": int(seen), "rows": rows}


def matrices_of_adafactor(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> list[nn.Parameter]:
    """What it moves of linear layers on a CPU: it reads gradients in any precision, and is there to save memory."""
    own = (optimizer for optimizer in optimizers if isinstance(optimizer, Adafactor))
    moved = {parameter for optimizer in own for group in optimizer.param_groups for parameter in group["params"]}
    layers = {module.weight for module in model.modules() if isinstance(module, nn.Linear)}
    return [parameter for parameter in moved & layers if parameter.device.type == "cpu"]


def step_scaled(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """A step with the gradients times `factor`. AdamW and Adafactor divide them as they read them, which saves a pass.

    It cannot on Apple's GPUs, nor where parameters are divided over processes.
    """
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    whole = not hasattr(own[0], "full_tensor") and own[0].device.type in ("cpu", "cuda")
    if isinstance(optimizer, (torch.optim.AdamW, Adafactor)) and whole:
        optimizer.grad_scale = torch.tensor(1 / factor)  # type: ignore[union-attr]
    elif factor != 1:
        torch._foreach_mul_([parameter.grad for parameter in own if parameter.grad is not None], factor)
    optimizer.step()


def gradients_within_memory(
    shared: Shared, task: Task, config: FitConfig, step: int, rows: int, short: Sequence[nn.Parameter] = ()
) -> tuple[float, float, float, int]:
    """As `add_gradients`, summed over all processes, which halve what they read at once where memory ran out in any.

    Also returns how many examples that is; 0 where there was memory for as many as usual.
    """
    batches, where, many = task.batches(step), f"{task.name}, step {step + 1}", world().size > 1
    while True:
        dice = random_state()
        found: tuple[float, int, int] | None = None
        usual = rows or usual_rows(shared.model, batches)
        try:
            with waited_for(shared.divided, where):
                found = add_gradients(shared, task, config, batches, usual, where, short)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # behind the except block, so that nothing of the failed pass is held any more
        if not found:
            free_memory(shared.model)
        if not found and many:
            with waited_for(True, where):
                stand_in(shared, task, config, batches)
        total, count, seen, failed = world().sum(*(found or (0.0, 0, 0)), not found)
        if not failed:
            return total, count, seen, rows
        clear_gradients(shared.model)
        set_random_state(dice)
        rows = halved(batches, usual, where)


@contextlib.contextmanager
def waited_for(others: bool, where: str) -> Iterator[None]:
    """Within the block `others` wait for what this process is at: where memory runs out there is no second try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not others or not is_out_of_memory(error):
            raise
        raise no_memory(where, "a pass in which other processes wait") from error


def stand_in(shared: Shared, task: Task, config: FitConfig, batches: Sequence[Any]) -> None:
    """Take part in what all processes do at the end of a step, by one example that counts nothing."""
    total, _ = loss_of(shared, task, config, cut(batches[-1], 0, 1))
    (total * 0).backward()  # type: ignore[no-untyped-call]


def free_memory(model: nn.Module) -> None:
    """Forget all gradients, and what a GPU keeps of freed memory."""
    clear_gradients(model)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def usual_rows(model: nn.Module, batches: Sequence[Any]) -> int:
    """How many examples of these batches are read at once where nothing says it; 0: all, as
    each of several processes does with its slice."""
    shapes = [module.config for module in model.modules() if isinstance(module, GPT)]
    if not shapes or world().size > 1 or next(model.parameters()).device.type != "cpu":
        return 0
    wholes = [max(rows_of(batch), 1) for batch in batches]
    parts = [micro_batch_of(n, shapes[0], batch.tokens / n) for n, batch in zip(wholes, batches, strict=True)]
    return min((part for part, whole in zip(parts, wholes, strict=True) if part < whole), default=0)


def micro_batch_of(rows: int, shape: ModelConfig, tokens: float) -> int:
    """Examples of about so many tokens that a CPU reads at once: of equal parts, as few as stay within AT_ONCE."""
    fit = AT_ONCE / (KEPT * shape.d_model * shape.n_layers * max(tokens, 1))
    return math.ceil(rows / math.ceil(rows / max(int(fit), 1)))


def add_gradients(
    shared: Shared,
    task: Task,
    config: FitConfig,
    batches: Sequence[Any],
    rows: int,
    where: str,
    short: Sequence[nn.Parameter] = (),
) -> tuple[float, int, int]:
    """Add up the gradients of this process's part of the batches; (sum of the losses, trained tokens, tokens read).

    Where there is nothing to add up, those of `short` stay in bfloat16, in which products gave them.
    """
    here = world()
    mine = list(pieces(batches, rows, here.rank, here.size))
    for parameter in short:
        parameter.grad_dtype = torch.bfloat16 if len(mine) == here.size == 1 else parameter.dtype
    losses, count, seen = [], 0, 0
    for number, (batch, counts) in enumerate(mine):
        last = number == len(mine) - 1
        with contextlib.nullcontext() if last else shared.not_yet():
            total, trained = loss_of(shared, task, config, batch)
            if trained or here.size > 1:  # the other processes wait for our gradients, even if they are zero
                with waited_for(last and here.size > 1, where):
                    (total * counts).backward()  # type: ignore[no-untyped-call]
        if trained and counts:
            losses.append(total.detach())
        count += counts * trained
        seen += counts * batch.tokens
    return sum(float(loss) for loss in losses), count, seen


def loss_of(shared: Shared, task: Task, config: FitConfig, batch: Any) -> tuple[torch.Tensor, int]:
    """Sum of the losses of a batch, in the precision of the run, and over how many trained tokens."""
    with precision(shared.model, config):
        return shared.run(partial(summed_loss, task, batch))


def summed_loss(task: Task, batch: Any, model: nn.Module) -> tuple[torch.Tensor, int]:
    """A batch's loss as a pair, which is what those that wrap a model can look into."""
    loss = task.loss(model, batch)
    return loss.total, loss.count


def clear_gradients(model: nn.Module) -> None:
    """Forget all gradients."""
    for parameter in model.parameters():
        parameter.grad = None


def halved(batches: Sequence[Any], rows: int, where: str) -> int:
    """Half as many examples at once, said in a line; a PellucidError where there is nothing left to halve."""
    whole = max(rows_of(batch) for batch in batches)
    most = math.ceil(whole / world().size)
    rows = min(rows or most, most)
    if rows <= 1:
        raise no_memory(where, "1 example at once")
    inform(
        f"{where}: out of memory; micro-batches of {rows // 2} instead of {rows} from now on, the batch stays {whole}"
    )
    return rows // 2


def no_memory(where: str, wanted: str) -> PellucidError:
    """What to say where memory is too little for what was wanted."""
    advice = "Lower --micro-batch-size, give --recompute, take a smaller model or shorter texts (pretrain: --context)."
    return PellucidError(problem(where, f"no memory left for {wanted}", "enough for a pass", advice))


def precision(model: nn.Module, config: FitConfig) -> torch.autocast:
    """Matrix products in bfloat16 when the config says so; weights, sums and norms stay in float32."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16")
