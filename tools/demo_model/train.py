"""Trains the demo model on the CPU, in a given time.

    python train.py FOLDER --minutes 75 [--processes 2] [--streaming [--start-from EXPORTED]]

FOLDER must have ``train/`` or several ``train*/`` (made by speech.py), and ``tokenizer/`` (made by model.py). It gets
``checkpoint.pt`` and ``train.log``. If the training is started again, it continues from the
checkpoint. The learning rate follows the clock and not the steps, so that it reaches zero in time however busy the
machine is.

Each process runs on one thread and makes its own scenes; gloo averages the gradients. On two cores this is faster than
one process with two threads, whose barriers stall when another program wants a core.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import model as demo
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scenes import RandomScenes, Scene
from speech import RATE, Corpus
from tdt_loss import build_lattice, tdt_loss
from warm_start import warm_start

SAMPLES_PER_FRAME = 160 * demo.SUBSAMPLING
EARLY, LATE = 2, 5  # how many encoder frames a token may come before or after its sentence
SIGMA = 0.05


def simple_share(progress: float, later: float) -> float:
    """The share of single sentences with tight edges: all of them at first, later fewer."""
    return float(np.interp(progress, (0.05, 0.2), (1.0, later)))


def learning_rate(progress: float, peak: float, warmup: float = 0.04) -> float:
    if progress < warmup:
        return peak * max(progress / warmup, 0.01)
    return peak * 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / (1 - warmup), 1)))


def batches(scenes: RandomScenes, seconds: float, simple: Callable[[], float], pool: int = 24):
    """Yields lists of plans: scenes of similar length, about `seconds` of audio together, padding included.

    simple: returns the share of simple scenes.
    """
    budget = seconds * RATE
    while True:
        share = simple()
        plans, total = [], 0
        while total < pool * budget:
            plans.append(scenes.plan(share))
            total += plans[-1].length
        plans.sort(key=lambda plan: plan.length)
        chunks, current = [], []
        for plan in plans:
            if current and (len(current) + 1) * plan.length > budget:
                chunks.append(current)
                current = []
            current.append(plan)
        chunks.append(current)
        for k in scenes.rng.permutation(len(chunks)):
            yield chunks[k]


def allowed_cells(scene: Scene, labels: list[list[int]], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """first, stop [T]: the range of how many tokens may have been emitted at each frame, as it is known when each
    sentence was said."""
    first, last = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
    count = 0
    for (_, start, end), ids in zip(scene.sentences, labels):
        done = end // SAMPLES_PER_FRAME + LATE
        count += len(ids)
        last[max(start // SAMPLES_PER_FRAME - EARLY, 0) :] = count
        first[min(done, frames - 1) + 1 :] = count
    return first, last + 1


def augment_features(
    features: torch.Tensor, lengths: torch.Tensor, rng: np.random.Generator, blank: float
) -> torch.Tensor:
    """Augment [B, M, T] in place: stretch the mel axis by up to 8 % in half of the scenes, then light SpecAugment.

    blank: what SpecAugment writes, the mean of the features.
    """
    count, mels, frames = features.shape
    axis = np.arange(mels)
    for b in range(count):
        if rng.random() < 0.5:
            source = np.clip(axis * rng.uniform(0.92, 1.08), 0, mels - 1.001)
            low = torch.from_numpy(source.astype(np.int64))
            weight = torch.from_numpy((source - source.astype(np.int64)).astype(np.float32))[:, None]
            features[b] = features[b, low] * (1 - weight) + features[b, low + 1] * weight
        for _ in range(rng.integers(0, 3)):
            width = int(rng.integers(1, 12))
            start = int(rng.integers(0, mels - width))
            features[b, start : start + width] = blank
        for _ in range(rng.integers(0, 3)):
            width = int(rng.integers(1, 10))
            start = int(rng.integers(0, max(int(lengths[b]) - width, 1)))
            features[b, :, start : start + width] = blank
    return features


def joint_rows(joint, encoded: torch.Tensor, predicted: torch.Tensor, lattice) -> torch.Tensor:
    """Joint logits [N, V + 1 + D] of the lattice's cells; encoded [B, T, E], predicted [B, U + 1, H]."""
    frames = joint.enc(encoded).flatten(0, 1)
    states = joint.pred(predicted).flatten(0, 1)
    cells = torch.nn.functional.embedding(torch.from_numpy(lattice.cell_frame), frames)
    cells = cells + torch.nn.functional.embedding(torch.from_numpy(lattice.cell_state), states)
    return joint.joint_net(cells)


def encode(model, features: torch.Tensor, lengths: torch.Tensor, rng: np.random.Generator):
    """Encoder output [B, E, T] and its lengths.

    A streaming model hears half of the batches as a stream does: with zeros in front of the features, whose encoder
    frames are dropped.
    """
    if not demo.streams(model) or rng.random() < 0.5:
        return model.encoder(audio_signal=features, length=lengths)
    features = torch.nn.functional.pad(features, (demo.OVERLAP, 0))
    frames, lengths = model.encoder.pre_encode(x=features.transpose(1, 2), lengths=lengths + demo.OVERLAP)
    return model.encoder(
        audio_signal=frames[:, demo.DROPPED :], length=lengths.long() - demo.DROPPED, bypass_pre_encode=True
    )


def loss_per_token(model, scenes: list[Scene], rng: np.random.Generator) -> torch.Tensor:
    """TDT loss of a batch, divided by the number of tokens in its texts."""
    samples = torch.zeros(len(scenes), max(len(scene.samples) for scene in scenes))
    for b, scene in enumerate(scenes):
        samples[b, : len(scene.samples)] = torch.from_numpy(scene.samples)
    with torch.no_grad():
        lengths = torch.tensor([len(scene.samples) for scene in scenes])
        features, lengths = model.preprocessor(input_signal=samples, length=lengths)
        normalised = model.cfg.preprocessor.normalize == "per_feature"
        features = augment_features(features, lengths, rng, 0.0 if normalised else demo.FEATURE_MEAN)
    encoded, frames = encode(model, features, lengths, rng)

    by_sentence = [[model.tokenizer.text_to_ids(text) for text, _, _ in scene.sentences] for scene in scenes]
    labels = [sum(ids, []) for ids in by_sentence]
    targets = torch.full((len(labels), max(map(len, labels))), model.decoder.blank_idx)
    for b, ids in enumerate(labels):
        targets[b, : len(ids)] = torch.tensor(ids)
    predicted, _ = model.decoder.predict(targets, add_sos=True)

    lattice = build_lattice(
        frames.tolist(),
        labels,
        model.decoder.blank_idx,
        encoded.shape[2],
        predicted.shape[1],
        [allowed_cells(scene, ids, int(t)) for scene, ids, t in zip(scenes, by_sentence, frames)],
    )
    rows = joint_rows(model.joint, encoded.transpose(1, 2), predicted, lattice)
    return tdt_loss(rows, lattice, demo.DURATIONS, SIGMA) / sum(map(len, labels))


class Clock:
    """Seconds of training so far, including earlier runs."""

    def __init__(self, before: float):
        self.before, self.start = before, time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start


def save(path: Path, model, optimizer, seconds: float, steps: int) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "seconds": seconds,
        "steps": steps,
        "streaming": demo.streams(model),
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def train(rank: int, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{options.port}", rank=rank, world_size=options.processes
    )
    torch.manual_seed(0)
    model = demo.build(options.folder / "tokenizer", options.streaming).train()
    model.preprocessor.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=1e-3, foreach=True)
    checkpoint, seconds, steps = options.folder / "checkpoint.pt", 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        seconds, steps = state["seconds"], state["steps"]
    elif options.start_from:
        warm_start(model, options.start_from)

    rng = np.random.default_rng([rank, steps])
    scenes = RandomScenes(Corpus(*sorted(options.folder.glob("train*/"))), rng)
    clock = Clock(seconds)
    saved, reported = clock.seconds(), (clock.seconds(), steps)
    progress, losses, audio = seconds / (60 * options.minutes), 0.0, 0.0
    source = batches(scenes, options.seconds, lambda: simple_share(progress, options.simple))
    log = open(options.folder / "train.log", "a") if rank == 0 else None

    # One vector holds all gradients, the loss and the clock. Averaging it makes the processes agree on all of them.
    flat = torch.zeros(sum(p.numel() for p in parameters) + 2)
    views, at = [], 0
    for p in parameters:
        views.append(flat[at : at + p.numel()].view_as(p))
        at += p.numel()
    while progress < 1:
        plans = next(source)
        batch = [scenes.scene(plan) for plan in plans]
        audio += sum(plan.length for plan in plans) / RATE
        loss = loss_per_token(model, batch, rng)
        loss.backward()
        for p, view in zip(parameters, views):
            view.zero_() if p.grad is None else view.copy_(p.grad)
            p.grad = view
        flat[-2], flat[-1] = loss.item(), clock.seconds()
        dist.all_reduce(flat)
        flat /= options.processes
        losses, seconds = losses + float(flat[-2]), float(flat[-1])
        if flat.isfinite().all():
            progress = seconds / (60 * options.minutes)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress, options.rate)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        if rank == 0 and steps % 50 == 0:
            rate = (steps - reported[1]) / (seconds - reported[0])
            print(
                f"{seconds / 60:6.2f} min  step {steps:6d}  loss {losses / 50:7.4f}  "
                f"rate {optimizer.param_groups[0]['lr']:.5f}  {rate:.2f} steps/s  "
                f"{options.processes * audio / (seconds - reported[0]):.0f} s/s",
                file=log,
                flush=True,
            )
            losses, audio, reported = 0.0, 0.0, (seconds, steps)
        if rank == 0 and seconds - saved > 120:
            save(checkpoint, model, optimizer, seconds, steps)
            saved = seconds
    if rank == 0:
        save(checkpoint, model, optimizer, seconds, steps)
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--streaming", action="store_true", help="train the streaming model")
    parser.add_argument("--start-from", type=Path, help="an exported demo model, whose weights a streaming one gets")
    parser.add_argument("--minutes", type=float, default=75, help="minutes of training, including earlier runs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--seconds", type=float, default=36, help="seconds of audio per step and process")
    parser.add_argument("--simple", type=float, default=0.3, help="share of single, tight sentences later on")
    parser.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate")
    parser.add_argument("--port", type=int, default=29517)
    options = parser.parse_args()
    # OpenMP reads these when it is loaded, so they act in the processes started below: waiting threads sleep.
    os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
    mp.spawn(train, (options,), options.processes)
