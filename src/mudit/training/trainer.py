"""One training run, from its config to its `trial.json`; resumable to the bit.

A run's folder: `config.json`, `plan.json`, `records.jsonl` (reproducible), `timings.jsonl`,
`checkpoint-STEP/` while it runs; `model.safetensors`, `ema.safetensors` and `trial.json` at its
end.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)

from mudit.data import (
    ImageDataset,
    Splits,
    batch_indices,
    captions_of,
    check_space,
    flips,
    images_of,
    open_dataset,
)
from mudit.diffusion import Objective, drop_labels, make_objective
from mudit.errors import DataError, EnvironmentFailure, Interrupted
from mudit.files import exclusive, write_text, write_whole
from mudit.models import architecture_of, builder, example_inputs, is_text_conditioned
from mudit.parametrization import Plan, plan
from mudit.records import Record, StepRecord, TimingRecord, TrialRecord, ValidationRecord, from_row
from mudit.training.alignment import (
    FeatureEncoder,
    aligned_builder,
    alignment_loss,
    feature_size,
    kept,
    open_encoder,
)
from mudit.training.checkpoint import (
    Progress,
    drop_checkpoints,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from mudit.training.conditioning import Conditioning, text_features
from mudit.training.config import DataConfig, RunConfig, claim_folder
from mudit.training.ema import EMA, decay_from_half_life
from mudit.training.files import RecordFile
from mudit.training.flops import step_flops, trainable_parameters
from mudit.training.randomness import generator, stream_seed
from mudit.training.schedule import lr_factor
from mudit.training.validation import ValidationBank

OnProgress: TypeAlias = Callable[[int, float], None]
# (steps taken, denoising loss on the validation bank) -> whether to end the run there
Prune: TypeAlias = Callable[[int, float], bool]
# Of the loss's terms; 1 for those that are not here. [REPA] code: proj_coeff.
_DEFAULT_WEIGHTS = {"repa": 0.5}
RunRole: TypeAlias = Literal["proxy", "target", "grid"]


def train(
    config: RunConfig,
    folder: Path,
    *,
    key: str = "run",
    role: RunRole = "target",
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
    prune: Prune | None = None,
    until: int | None = None,
    wait_seconds: float = 60.0,
) -> TrialRecord:
    """Train, or go on training, what `config` says, in `folder`.

    Args:
        config: The run.
        folder: Its own folder; holds its state between sittings.
        key: Its name in its study.
        role: What it is for.
        on_progress: Told (steps taken, last loss) now and then.
        should_stop: Asked after every step; if true, the run is saved and stops.
        prune: Asked at the config's rungs; if true, the run ends there.
        until: One of the config's rungs, at which the run pauses; a later call goes on from there.
        wait_seconds: How long to wait for another process that is at work in the folder: the
            workers of a study that was killed are at the end of a step still.

    Returns:
        How it ended; read back if it had ended before. A paused run has status `pruned`, and is
        recorded in `rung-STEP.json` instead of `trial.json`.

    Raises:
        ConfigMismatchError: The folder belongs to another config.
        DataError: The data are missing, damaged, or not those that the config names.
        EnvironmentFailure: The folder cannot be written, a checkpoint cannot be read, or the
            device's memory does not suffice.
        FolderBusyError: Another process is at work in the folder.
        Interrupted: `should_stop` said so; all is saved.
    """
    with exclusive(folder, wait_seconds=wait_seconds, should_stop=should_stop):
        claim_folder(folder, config.to_json())
        finished = folder / "trial.json"
        paused = finished if until is None else rung_file(folder, until)
        if not finished.exists() and not paused.exists():
            torch.set_num_threads(config.threads)
            with _memory_explained(config):
                run = _Run.start(config, folder)
                try:
                    end = run.loop(
                        on_progress or (lambda step, loss: None), should_stop, prune, until=until
                    )
                    record = run.finish(end, key=key, role=role)
                finally:
                    run.close()
            here = paused if end == _End("pruned", until or 0) else finished
            write_text(here, json.dumps(dataclasses.asdict(record), indent=1) + "\n")
        if not finished.exists():
            return read_trial(paused)
        drop_checkpoints(folder)
        return read_trial(finished)


@contextmanager
def _memory_explained(config: RunConfig) -> Iterator[None]:
    """A device whose memory does not suffice as an error that says what would."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        parts = config.training.accumulation
        raise EnvironmentFailure(
            f"width {config.model.width} with {config.batch_size // parts} images at a time does "
            f"not fit into the device's memory ({str(error).partition('. ')[0]}). Raise "
            f"training.accumulation, now {parts}, or set training.activation_checkpointing; in a "
            "new folder."
        ) from None


def rung_file(folder: Path, step: int) -> Path:
    """Where a run that pauses at a step says so."""
    return folder / f"rung-{step:08d}.json"


def end_paused(folder: Path, step: int) -> None:
    """Let a run that pauses at a step end there."""
    finished = folder / "trial.json"
    if not finished.exists():
        write_text(finished, rung_file(folder, step).read_text(encoding="utf-8"))
    drop_checkpoints(folder)


def read_trial(path: Path) -> TrialRecord:
    """The record in a `trial.json`.

    Raises:
        DataError: The file is damaged.
    """
    try:
        record = from_row({"kind": "trial", **json.loads(path.read_text(encoding="utf-8"))})
    except ValueError as error:
        raise DataError(f"{path}: {error}. Delete it to run the trial's end again.") from None
    assert isinstance(record, TrialRecord)
    return record


def open_splits(config: DataConfig) -> Splits:
    """The data that a config names.

    Raises:
        DataError: They are missing or damaged, of another VAE, or have changed since the config
            was made.
    """
    splits = open_dataset(
        config.source,
        size=config.size,
        flip=config.flip,
        most_skipped=config.most_skipped,
        vae=config.vae,
    )
    check_space(config.latents, splits.train)
    if config.fingerprint and config.fingerprint != splits.fingerprint:
        raise DataError(
            f"the images of {config.source!r} are not those that this study began with. Restore "
            "them, or begin a new study in another folder with --folder."
        )
    return splits


def resolve_device(name: str) -> torch.device:
    """`auto` is a GPU if there is one.

    Raises:
        EnvironmentFailure: The device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFailure(
            f"training.device is {name!r}, but torch finds no GPU. Use --training.device cpu."
        )
    return device


def make_optimizer(config: RunConfig, plan: Plan, model: nn.Module) -> torch.optim.Optimizer:
    """The plan's torch optimizer with the run's base HPs, fused where torch has it."""
    hps = config.hps
    groups = plan.param_groups(model, lr=hps.lr, weight_decay=hps.weight_decay, eps=hps.eps)
    if config.parametrization.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=hps.beta1, fused=True)
    cls = torch.optim.AdamW if config.parametrization.optimizer == "adamw" else torch.optim.Adam
    return cls(groups, betas=(hps.beta1, hps.beta2), fused=True)


def make_plan(config: RunConfig) -> Plan:
    """The plan of what the run trains: its model, with a projector where it is aligned."""
    chosen = config.parametrization
    return plan(
        _builder(config),
        width=config.model.width,
        base_width=chosen.base_width,
        inputs=example_inputs(config.model),
        parametrization=chosen.parametrization,
        optimizer=chosen.optimizer,
        wd=chosen.wd,
        eps_rule=chosen.eps_rule,
        zero_readout=chosen.zero_readout,
        phi=config.hps.phi,  # type: ignore[arg-type]
        sigma=config.hps.sigma,  # type: ignore[arg-type]
        lr_multiplier=config.hps.lr_multiplier,  # type: ignore[arg-type]
    )


def flops_of_step(config: RunConfig) -> float:
    """FLOPs of a training step of the run; see `step_flops`."""
    return step_flops(config.model, config.batch_size, build=_builder(config))


def parameters_of(config: RunConfig) -> int:
    """Trainable parameters of the run's model, without the projector that is thrown away."""
    with torch.device("meta"):
        return trainable_parameters(builder(config.model)(config.model.width))


def _builder(config: RunConfig) -> Callable[[int], nn.Module]:
    if not config.repa.is_on:
        return builder(config.model)
    return aligned_builder(
        config.model,
        block=config.repa.block_of(config.model.depth),
        features=feature_size(config.repa.encoder),
        hidden=config.repa.hidden,
    )


@dataclass(kw_only=True)
class _Pending:
    """Steps whose losses are still on the device."""

    lrs: list[float] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)  # each: grad norm, then loss, then terms
    updates: dict[str, float] = field(default_factory=dict)  # of the last step


class _End(NamedTuple):
    """How a run ended, and after how many steps."""

    status: Literal["complete", "diverged", "pruned"]
    step: int


@dataclass(kw_only=True)
class _Run:
    """What a run holds while it runs."""

    config: RunConfig
    folder: Path
    device: torch.device
    dataset: ImageDataset
    bank: ValidationBank
    objective: Objective
    plan: Plan
    model: nn.Module
    forward: Callable[..., Any]  # a prediction, and where the run is aligned, features
    conditioning: Conditioning
    encoder: FeatureEncoder | None
    images: ImageDataset | None  # what the encoder sees, where the data are latents
    ema: EMA
    optimizer: torch.optim.Optimizer
    base_lrs: list[float]
    progress: Progress
    records: RecordFile
    timings: RecordFile
    board: Any
    flops: float
    pending: _Pending = field(default_factory=_Pending)
    started: float = field(default_factory=time.perf_counter)

    # --- beginning -------------------------------------------------------------------------------

    @classmethod
    def start(cls, config: RunConfig, folder: Path) -> _Run:
        device = resolve_device(config.training.device)
        if config.training.precision != "fp32" and device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        splits = open_splits(config.data)
        objective = make_objective(config.objective)
        chosen = make_plan(config)
        write_text(folder / "plan.json", chosen.to_json())
        torch.manual_seed(stream_seed(config.seed, "initial"))
        model = chosen.build().to(device)
        ema = EMA(model, _ema_decay(config))
        optimizer = make_optimizer(config, chosen, model)
        chosen.guard(optimizer)
        progress = load_checkpoint(folder, model=model, ema=ema.model, optimizer=optimizer)
        if config.training.activation_checkpointing:
            block = architecture_of(config.model).block
            # Names of parameters and of saved tensors stay as they are.
            apply_activation_checkpointing(model, check_fn=lambda part: isinstance(part, block))
        encoder = images = None
        if config.repa.is_on:
            images = images_of(splits.train)
            encoder = open_encoder(
                config.repa.encoder, images, folder, seed=config.bank_seed, device=device
            )
        board = _tensorboard(folder) if config.training.tensorboard else None
        bank = ValidationBank.draw(
            splits.validation, objective, size=config.training.bank_size, seed=config.bank_seed
        )
        return cls(
            config=config,
            folder=folder,
            device=device,
            dataset=splits.train,
            bank=bank.to(device),
            objective=objective,
            plan=chosen,
            model=model,
            forward=torch.compile(model) if config.training.compile else model,
            conditioning=_conditioning(config, splits.train, kept(model), folder),
            encoder=encoder,
            images=None if images is splits.train else images,
            ema=ema,
            optimizer=optimizer,
            base_lrs=[group["lr"] for group in optimizer.param_groups],
            progress=progress,
            records=RecordFile(folder / "records.jsonl", size=progress.records_size),
            timings=RecordFile(folder / "timings.jsonl", size=progress.timings_size),
            board=board,
            flops=flops_of_step(config),
        )

    def close(self) -> None:
        self.records.close()
        self.timings.close()
        if self.board is not None:
            self.board.close()

    # --- the loop --------------------------------------------------------------------------------

    def loop(
        self,
        on_progress: OnProgress,
        should_stop: Callable[[], bool] | None,
        prune: Prune | None,
        *,
        until: int | None,
    ) -> _End:
        """Train to the end, whichever it is."""
        training, clock = self.config.training, time.perf_counter()
        for step in range(self.progress.step, self.config.steps):
            done = step + 1
            last = done == self.config.steps
            measure = last or done % training.log_steps == 0
            rung = not last and done in self.config.rungs
            validate = rung or (not last and _due(done, training.validation_steps))
            self._step(step, measure=measure)
            stop = should_stop is not None and should_stop()
            pause = not last and done == until
            save = stop or pause or (not last and _due(done, training.checkpoint_steps))
            if measure or validate or save:
                rows, bad = self._flush(done)
                self._time(done, len(rows), clock)
                if bad is not None:
                    return _End("diverged", bad)
                on_progress(done, rows[-1].loss)
            if validate:
                row = self._validate(done, "raw")
                self.records.write([row])
                if rung and prune is not None and prune(done, row.denoising):
                    return _End("pruned", done)
            if save:
                self._save(done)
            if pause:
                return _End("pruned", done)
            if measure or validate or save:
                clock = time.perf_counter()  # validation and saving are not training
            if stop:
                raise Interrupted(
                    f"stopped after step {done} of {self.config.steps}; everything is saved in "
                    f"{self.folder}. Repeat the same command to go on from there."
                )
        return _End("complete", self.config.steps)

    def _step(self, step: int, *, measure: bool) -> None:
        hps, pending = self.config.hps, self.pending
        factor = lr_factor(
            self.config.training.schedule,
            step,
            steps=self.config.steps,
            warmup_steps=hps.warmup_steps,
        )
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        values = self._backward(step)
        if hps.clip:
            norm = self.plan.clip_grad_norm_(self.model, hps.clip)
        else:
            norm = self.plan.grad_norm(self.model)
        before = _copies(self.model) if measure else []
        self.optimizer.step()
        self.ema.update()
        pending.values.append(torch.stack([norm.detach(), *values]))
        pending.lrs.append(hps.lr * factor)
        if measure:
            pending.updates = _update_ratios(self.plan, self.model, before)

    def _backward(self, step: int) -> list[Tensor]:
        """Gradients of the step's mean loss; returns the mean loss and its terms."""
        config, rng = self.config, generator(self.config.seed, "step", step)
        indices = batch_indices(self.dataset.num_samples, config.batch_size, config.seed, step)
        turned = flips(config.seed, step, config.batch_size) if self.dataset.flip else None
        x0, labels = self.dataset.batch(indices, turned, rng)
        t = self.objective.draw_t(config.batch_size, rng)
        noise = torch.randn(x0.shape, generator=rng)
        labels = drop_labels(
            labels, self.conditioning.null_label, config.training.label_dropout, generator=rng
        )
        batch = [x0, t, noise, labels]
        if self.images is not None:  # of the same crop, and mirrored as the latents are
            batch.append(self.images.batch(indices, turned)[0])
        parts = config.training.accumulation
        sums: list[Tensor] = []
        for chunk in zip(*(tensor.to(self.device).chunk(parts) for tensor in batch)):
            terms = self._loss(*chunk)
            (terms[0] / parts).backward()  # type: ignore[no-untyped-call]
            means = [term.detach() / parts for term in terms]
            sums = [a + b for a, b in zip(sums, means)] if sums else means
        return sums

    def _loss(
        self, x0: Tensor, t: Tensor, noise: Tensor, labels: Tensor, images: Tensor | None = None
    ) -> list[Tensor]:
        told = self.conditioning(labels)
        projected: list[Tensor] = []

        def network(x_t: Tensor, at: Tensor) -> Tensor:
            output = self.forward(x_t, at, *told)
            prediction: Tensor = output if self.encoder is None else output[0]
            if self.encoder is not None:
                projected.append(output[1])
            return prediction

        with self._autocast():
            terms = self.objective.loss(network, x0, t, noise=noise)
            named = terms.named()
            if self.encoder is not None:
                grid = math.isqrt(self.config.model.num_tokens)
                seen = self.encoder(x0 if images is None else images, grid=grid)
                named["repa"] = alignment_loss(projected[0], seen)
        weights = _DEFAULT_WEIGHTS | self.config.hps.loss_weight
        total = sum(weights.get(name, 1.0) * value for name, value in named.items())
        assert isinstance(total, Tensor)
        return [total.mean(), *(value.mean() for value in named.values())]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.training.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    # --- what it writes --------------------------------------------------------------------------

    def _flush(self, done: int) -> tuple[list[StepRecord], int | None]:
        """Write the pending steps, the last of which is step `done`.

        Returns:
            The rows, and the step whose loss was not finite, if any; that one and those after it
            are not written.
        """
        pending, self.pending = self.pending, _Pending()
        values = torch.stack(pending.values).tolist()
        first = done - len(values) + 1
        rows = [
            StepRecord(
                step=first + index,
                loss=loss,
                terms=dict(zip(self.config.term_names, terms)),
                grad_norm=norm,
                lr=pending.lrs[index],
                update_ratio=pending.updates if first + index == done else {},
            )
            for index, (norm, loss, *terms) in enumerate(values)
        ]
        bad = next((row.step for row in rows if not math.isfinite(row.loss)), None)
        self.records.write([row for row in rows if bad is None or row.step < bad])
        if self.board is not None:
            _show(self.board, rows[-1])
        return rows, bad

    def _time(self, done: int, count: int, since: float) -> None:
        seconds = time.perf_counter() - since
        row = TimingRecord(
            step=done,
            seconds=seconds,
            images_per_second=count * self.config.batch_size / seconds,
            flops_per_second=count * self.flops / seconds,
        )
        self.timings.write([row])
        if self.board is not None:
            self.board.add_scalar("images_per_second", row.images_per_second, done)

    def _validate(self, step: int, weights: Literal["raw", "ema"]) -> ValidationRecord:
        model = kept(self.ema.model if weights == "ema" else self.model)
        with self._autocast():
            terms = self.bank.losses(
                lambda x_t, at, labels: model(x_t, at, *self.conditioning(labels)),
                self.objective,
                batch_size=self.config.batch_size,
            )
        if self.board is not None:
            self.board.add_scalar(f"validation/{weights}", terms["denoising"], step)
        return ValidationRecord(
            step=step, weights=weights, denoising=terms["denoising"], terms=terms
        )

    def _save(self, done: int) -> None:
        now = time.perf_counter()
        self.progress = Progress(
            step=done,
            records_size=self.records.sync(),
            timings_size=self.timings.sync(),
            seconds=self.progress.seconds + now - self.started,
        )
        self.started = now
        save_checkpoint(
            self.folder,
            self.progress,
            model=self.model,
            ema=self.ema.model,
            optimizer=self.optimizer,
        )

    def finish(self, end: _End, *, key: str, role: RunRole) -> TrialRecord:
        """Validate, keep the weights, and say how the run ended."""
        score: float | None = None
        if end.status == "complete":
            rows: list[Record] = [self._validate(end.step, w) for w in ("raw", "ema")]
            self.records.write(rows)
            score = rows[0].denoising  # type: ignore[union-attr]
            if not math.isfinite(score):
                end, score = _End("diverged", end.step), None
        self.records.sync()
        if end.status != "pruned":
            for name, model in (("model", self.model), ("ema", self.ema.model)):
                path = self.folder / f"{name}.safetensors"
                write_whole(path, partial(save_weights, kept(model)))
        return TrialRecord(
            key=key,
            role=role,
            parametrization=self.config.parametrization.parametrization,
            width=self.config.model.width,
            parameters=trainable_parameters(kept(self.model)),
            batch_size=self.config.batch_size,
            steps=self.config.steps,
            seed=self.config.seed,
            hps=self.config.hps.flat(),
            status=end.status,
            diverged_step=end.step if end.status == "diverged" else None,
            pruned_step=end.step if end.status == "pruned" else None,
            score=score,
            train_flops=self.flops * end.step,
            seconds=self.progress.seconds + time.perf_counter() - self.started,
        )


def _conditioning(
    config: RunConfig, dataset: ImageDataset, model: nn.Module, folder: Path
) -> Conditioning:
    if not is_text_conditioned(config.model):
        return Conditioning.of(config.model, (), model)
    captions = captions_of(dataset) if dataset.captioned else config.captions
    features = text_features(
        config.text,
        captions,
        folder,
        tokens=config.model.caption_tokens,
        bytes_dim=config.model.caption_dim or 0,
    )
    return Conditioning.of(config.model, captions, model, features=features)


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _ema_decay(config: RunConfig) -> float:
    training = config.training
    if training.ema_decay is not None:
        return training.ema_decay
    return decay_from_half_life(training.ema_half_life, config.steps)


def _copies(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def _update_ratios(plan: Plan, model: nn.Module, before: list[Tensor]) -> dict[str, float]:
    """By role: norm of the step's update over norm of the weights before it."""
    parameters = plan.match(model)
    rows = [row for row in plan.rows if parameters[row.name].requires_grad]
    sums: dict[str, list[float]] = {}
    for row, old in zip(rows, before):
        both = sums.setdefault(row.role, [0.0, 0.0])
        new = parameters[row.name].detach()
        both[0] += (new - old).double().square().sum().item()
        both[1] += old.double().square().sum().item()
    return {role: math.sqrt(u / w) for role, (u, w) in sorted(sums.items()) if w > 0}


def _show(board: Any, row: StepRecord) -> None:
    values = {"loss": row.loss, "grad_norm": row.grad_norm, "lr": row.lr}
    values |= {f"terms/{name}": value for name, value in row.terms.items()}
    values |= {f"update_ratio/{role}": value for role, value in row.update_ratio.items()}
    for name, value in values.items():
        board.add_scalar(name, value, row.step)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise EnvironmentFailure(
            "training.tensorboard needs TensorBoard, which is not installed: "
            "pip install 'mudit[track]'."
        ) from None
    return SummaryWriter(folder / "tensorboard")
