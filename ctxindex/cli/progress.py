"""How far long work is, on standard error: bars on a terminal, elsewhere a line now and then.

`Bars` and `Lines` follow documents on their way through the model, for an ingest or a verification; `EvaluationBars`
and `EvaluationLines` do so for every run of an evaluation, `TrainingBar` and `TrainingLines` follow the steps of a
training.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.output import plural

if TYPE_CHECKING:
    from ctxindex.evaluation import Configuration, Corpus, Run
    from ctxindex.indexing import Plan


_EVERY = 10.0
"""Seconds between plain lines."""

_SILENCE = 60.0
"""Seconds after which a training says how far it is, although there is no loss to tell."""


def _on_terminal() -> bool:
    """Whether bars can be drawn: some terminals have no size, and tqdm draws nothing on them."""
    if not sys.stderr.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


class Bars:
    """Implements `ctxindex.indexing.Progress` with two bars: documents, and tokens through the model."""

    def start(self, plan: Plan) -> None:
        """Draw the bars; none where there is nothing to do."""
        self.open(len(plan.work))

    def open(self, documents: int) -> None:
        """Draw the bars for so many documents."""
        from tqdm import tqdm

        self._documents: Any = None
        if documents:
            # Documents end in groups, as batches mix them, so the time that is left cannot be told from their number.
            bar = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}"
            self._documents = tqdm(total=documents, desc="documents", bar_format=bar, leave=False, ncols=60)
            self._tokens = tqdm(desc="tokens", unit=" tokens", unit_scale=True, leave=False, ncols=60)

    def advance(self, tokens: int) -> None:
        """Move the second bar."""
        self._tokens.update(tokens)

    def done(self, doc_id: str, failure: str | None) -> None:
        """Move the first bar."""
        if self._documents is not None:
            self._documents.update()

    def close(self) -> None:
        """Take the bars away."""
        if getattr(self, "_documents", None) is not None:
            self._tokens.close()
            self._documents.close()


class Lines:
    """Implements `ctxindex.indexing.Progress` with a line at the start, `opening`, and one every few seconds."""

    def __init__(self, opening: Callable[[Plan], str]) -> None:
        self._opening = opening

    def start(self, plan: Plan) -> None:
        """Say what will be done."""
        self.open(len(plan.work), self._opening(plan))

    def open(self, documents: int, opening: str) -> None:
        """Begin to count so many documents, and say `opening` where there are any."""
        self._total = documents
        self._tokens = self._done = 0
        self._began = self._said = time.monotonic()
        if documents:
            _say(opening)

    def advance(self, tokens: int) -> None:
        """Count, and speak when it is time."""
        self._tokens += tokens
        now = time.monotonic()
        if now - self._said >= _EVERY:
            rate = self._tokens / (now - self._began)
            _say(f"{self._done:,} of {plural(self._total, 'document')}, {self._tokens:,} tokens, {rate:,.0f} tokens/s")
            self._said = now

    def done(self, doc_id: str, failure: str | None) -> None:
        """Count."""
        self._done += 1

    def close(self) -> None:
        """Nothing."""


def choose(quiet: bool, opening: Callable[[Plan], str] | None = None) -> Bars | Lines | None:
    """Bars on a terminal, lines elsewhere (the first is `opening`), nothing where nobody wants to know."""
    if quiet:
        return None
    return Bars() if _on_terminal() else Lines(opening or _to_ingest)


class EvaluationBars(Bars):
    """Implements `ctxindex.evaluation.evaluator.Watch`: bars for each run, and a line of what it found."""

    def begin(self, corpus: Corpus, configuration: Configuration) -> None:
        """Draw the bars anew."""
        self.open(len(corpus.documents))

    def end(self, run: Run) -> None:
        """Take them away, and say what came of it."""
        self.close()
        _say(_found(run))


class EvaluationLines(Lines):
    """Implements `ctxindex.evaluation.evaluator.Watch` with a line before each run and one of what it found."""

    def __init__(self) -> None:
        super().__init__(_to_ingest)

    def begin(self, corpus: Corpus, configuration: Configuration) -> None:
        """Say what comes."""
        what = f"{plural(len(corpus.documents), 'document')}, {plural(corpus.n_chunks, 'chunk')}"
        self.open(len(corpus.documents), f"{corpus.name}, {configuration.name}: {what}")

    def end(self, run: Run) -> None:
        """Say what came of it."""
        _say(_found(run))


def choose_watch(quiet: bool) -> EvaluationBars | EvaluationLines | None:
    """As `choose`, for an evaluation."""
    if quiet:
        return None
    return EvaluationBars() if _on_terminal() else EvaluationLines()


class TrainingBar:
    """Implements `training.running.watching.TrainingWatch` with a bar of steps, and a line for each measurement."""

    def start(self, steps: int, done: int) -> None:
        """Draw the bar."""
        from tqdm import tqdm

        self._bar: Any = tqdm(total=steps, initial=done, desc="training", unit=" steps", leave=False, ncols=80)

    def step(self, done: int) -> None:
        """Move it."""
        self._bar.update(done - self._bar.n)

    def loss(self, step: int, values: Mapping[str, float]) -> None:
        """Show the loss beside it."""
        self._bar.set_postfix_str(f"loss {values['loss']:.4f}")

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """Say what was found."""
        self._bar.clear()
        _say(_measured(step, self._bar.total, values))
        self._bar.refresh()

    def finish(self, step: int) -> None:
        """Take the bar away."""
        self._bar.close()

    def close(self) -> None:
        """The same, if it is there."""
        if hasattr(self, "_bar"):
            self._bar.close()


def _spoken(seconds: float) -> str:
    """A time that is left, roughly."""
    return f"{seconds:.0f} s" if seconds < 90 else plural(round(seconds / 60), "minute")


class TrainingLines:
    """Implements `training.running.watching.TrainingWatch` with a line every few seconds, and each measurement."""

    def start(self, steps: int, done: int) -> None:
        """Say how much there is to do."""
        self._steps, self._first = steps, done
        self._began = self._said = time.monotonic()
        self._spoke = False
        _say(f"training: {plural(steps, 'step')}" + (f", {done:,} of them done before" if done else ""))

    def step(self, done: int) -> None:
        """Say how long a step takes after the first, and now and then where nothing else is said for long."""
        now = time.monotonic()
        if done == self._first + 1 or now - self._said >= _SILENCE:
            each = (now - self._began) / (done - self._first)
            left = each * (self._steps - done)
            _say(f"step {done:,} of {self._steps:,}: {each:.1f} s a step, about {_spoken(left)} to go")
            self._said = now

    def loss(self, step: int, values: Mapping[str, float]) -> None:
        """Speak when it is time, and of the first and the last loss."""
        now = time.monotonic()
        if now - self._said >= _EVERY or step == self._steps or not self._spoke:
            each = (now - self._began) / max(1, step - self._first)
            _say(f"step {step:,} of {self._steps:,}: loss {values['loss']:.4f}, {each:.2f} s a step")
            self._said, self._spoke = now, True

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """Say what was found."""
        _say(_measured(step, self._steps, values))

    def finish(self, step: int) -> None:
        """Say so: what follows takes its time, too."""
        _say(f"trained {plural(step, 'step')} in {time.monotonic() - self._began:.0f} s; measuring and writing")

    def close(self) -> None:
        """Nothing."""


class MeasuringBars(EvaluationBars):
    """As `EvaluationBars`, with a line before each run and none for what it found: a table follows."""

    def begin(self, corpus: Corpus, configuration: Configuration) -> None:
        """Say what comes, and draw the bars anew."""
        _say(_measuring(corpus, configuration))
        super().begin(corpus, configuration)

    def end(self, run: Run) -> None:
        """Take the bars away."""
        self.close()


class MeasuringLines(EvaluationLines):
    """As `EvaluationLines`, without a line for what each run found."""

    def begin(self, corpus: Corpus, configuration: Configuration) -> None:
        """Say what comes."""
        self.open(len(corpus.documents), _measuring(corpus, configuration))

    def end(self, run: Run) -> None:
        """Nothing."""


def _measuring(corpus: Corpus, configuration: Configuration) -> str:
    model = configuration.common.get("model")
    what = configuration.name if model is None else f"{model}, {configuration.name}"
    return f"measuring on {plural(len(corpus.documents), 'document')} of {corpus.name}: {what}"


def choose_training(
    quiet: bool,
) -> tuple[TrainingBar | TrainingLines | None, MeasuringBars | MeasuringLines | None]:
    """As `choose`, for a training: who watches its steps, and who its measurements."""
    if quiet:
        return None, None
    return (TrainingBar(), MeasuringBars()) if _on_terminal() else (TrainingLines(), MeasuringLines())


def _measured(step: int, steps: int, values: Mapping[str, float]) -> str:
    whole = 100 * values["ndcg@10"]
    each = [f"{name.removeprefix('ndcg@10 ')} {100 * value:.1f}" for name, value in values.items() if " " in name]
    return f"step {step:,} of {steps:,}: nDCG@10 {whole:.1f} on held-out documents" + (
        f" ({', '.join(each)})" if each else ""
    )


def _found(run: Run) -> str:
    seconds = run.seconds["index"]
    made = "vectors were there already" if run.cached == run.corpus.n_chunks else f"indexed in {seconds:.1f} s"
    if 0 < run.cached < run.corpus.n_chunks:
        made = f"{run.cached:,} vectors were there already, all took {seconds:.1f} s"
    at = "" if run.point is None else f", {run.point.name} {run.point.value:g}"
    return (
        f"{run.corpus.name}, {run.name}{at}: nDCG@10 {100 * run.metrics['ndcg@10'].mean:.1f}, "
        f"{made}, {len(run.corpus.queries):,} queries "
        f"in {run.seconds['search']:.1f} s"
    )


def _to_ingest(plan: Plan) -> str:
    return f"{plural(len(plan.new), 'new document')}, {len(plan.changed):,} changed, {plan.unchanged:,} unchanged"


def _say(line: str) -> None:
    click.echo(line, err=True)
