"""Learning curves."""

import json

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.plots import UsageHistory, plot_training, read_curves, read_history

HISTORY = UsageHistory(np.array([10, 20]), np.array([[1, 2, 3, 0], [3, 3, 3, 1]]))


@pytest.fixture
def metrics(tmp_path):
    """A metrics.jsonl as the trainer writes it: 300 lines of training, 3 validations."""
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        for step in range(1, 301):
            line = {"kind": "train", "step": step, "time": 1.5, "loss": 2 / step + 0.1, "mse": 2 / step}
            line |= {"commitment": 0.1, "lr": 3e-4, "grad_norm": float("nan") if step == 5 else 1.0 + step % 7}
            file.write(json.dumps(line) + "\n")
            if step % 100 == 0:
                valid = {"log_mel_l1": 1 / step, "codes_used": step, "perplexity": step / 2}
                file.write(json.dumps({"kind": "valid", "step": step, "time": 1.5, **valid}) + "\n")
    return path


def panel(figure, label):
    (axes,) = [axes for axes in figure.axes if axes.get_visible() and axes.get_ylabel() == label]
    return axes


def curve(axes, name):
    (line,) = [line for line in axes.lines if line.get_label() == name]
    return line.get_data()


def test_reading_gives_columns_by_kind(metrics):
    curves = read_curves(metrics)
    assert set(curves) == {"train", "valid"}
    assert curves["valid"]["step"].tolist() == [100, 200, 300]
    np.testing.assert_allclose(curves["valid"]["log_mel_l1"], [0.01, 0.005, 1 / 300])
    assert len(curves["train"]["loss"]) == 300
    assert np.isnan(curves["train"]["grad_norm"][4])


def test_a_running_training_may_be_in_the_middle_of_a_line(metrics):
    before = read_curves(metrics)
    with metrics.open("a") as file:
        file.write('{"kind": "train", "step": 301, "lo')
    after = read_curves(metrics)
    np.testing.assert_array_equal(after["train"]["loss"], before["train"]["loss"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        ("", "nothing has been measured"),
        ("not json\n", "line 1 is no measurement"),
        ('{"kind": "train", "step": 1}\n{"step": 2}\n', "line 2 is no measurement"),
        ('{"kind": "train"}\n', "line 1 is no measurement"),
        ("[1]\n", "line 1 is no measurement"),
    ],
)
def test_metrics_that_are_none(tmp_path, content, reason):
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MelcodecError, match=reason) as caught:
        read_curves(path)
    assert caught.value.hint


def test_every_curve_has_its_place(metrics, check_page):
    figure = plot_training(read_curves(metrics), title="run")
    loss = panel(figure, "Training loss")
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["loss (weighted sum)", "mse", "commitment"]
    assert loss.get_yscale() == "log"
    steps, values = curve(loss, "mse")
    np.testing.assert_allclose(values[150], np.mean(2 / np.arange(148, 155)), rtol=1e-9)  # 151 +- 3: two per cent of 300
    assert steps[150] == 151
    np.testing.assert_allclose(loss.lines[0].get_ydata(), 2 / np.arange(1, 301) + 0.1)  # the raw curve, faint
    assert loss.lines[0].get_alpha() < 0.5
    steps, values = curve(panel(figure, "Validation log-mel L1"), "log-mel L1")
    assert steps.tolist() == [100, 200, 300]
    np.testing.assert_allclose(values, [0.01, 0.005, 1 / 300])
    codes = panel(figure, "Validation codes")
    assert curve(codes, "codes used")[1].tolist() == [100, 200, 300]
    assert curve(codes, "perplexity")[1].tolist() == [50, 100, 150]
    assert set(curve(panel(figure, "Learning rate"), "learning rate")[1]) == {3e-4}
    assert len(curve(panel(figure, "Gradient norm"), "gradient norm")[0]) == 299, "NaN is left out"
    check_page(figure, ("Training step", "run"))


def test_the_lowest_of_each_column_names_the_steps(metrics):
    figure = plot_training(read_curves(metrics))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [bool(axes.get_xlabel()) for axes in shown] == [False, False, False, True, True]


def test_only_what_was_measured_is_drawn(check_page):
    curves = {
        "valid": {"step": np.array([5]), "log_mel_l1": np.array([1.0]), "agreement": np.array([0.5]), "lost": np.array([1.0])}
    }
    figure = plot_training(curves)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Validation log-mel L1", "Codes that stayed (share)"]
    check_page(figure, ("Training step",))
    one = plot_training({"train": {"step": np.arange(3), "loss": np.ones(3), "lr": np.full(3, np.nan)}})
    assert [axes.get_ylabel() for axes in one.axes] == ["Training loss"]
    with pytest.raises(MelcodecError, match="none of the curves"):
        plot_training({"train": {"step": np.arange(3), "lr": np.full(3, np.nan)}})


def test_the_history_of_usage_stands_below(metrics, check_page):
    figure = plot_training(read_curves(metrics), HISTORY, "run")
    (history,) = [axes for axes in figure.axes if axes.images]
    assert history.get_title(loc="left") == "Use of every code: 4 of 4 codes occur at the end"
    assert history.get_window_extent().y1 < panel(figure, "Gradient norm").get_window_extent().y0
    check_page(figure, ("Training step", "Codes, most used first"))


def test_a_history_is_read_as_the_trainer_writes_it(tmp_path):
    np.savez_compressed(tmp_path / "usage.npz", steps=HISTORY.steps, counts=HISTORY.counts)
    read = read_history(tmp_path / "usage.npz")
    np.testing.assert_array_equal(read.steps, HISTORY.steps)
    np.testing.assert_array_equal(read.counts, HISTORY.counts)


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "other", "shape", "pickle", "folder", "npy"])
def test_histories_that_are_none(tmp_path, kind):
    path = tmp_path / "usage.npz"
    arrays = {"steps": HISTORY.steps, "counts": HISTORY.counts}
    if kind == "text":
        path.write_text("hello")
    elif kind == "cut":
        np.savez(path, **arrays)
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "other":
        np.savez(path, codes=HISTORY.counts)
    elif kind == "shape":
        np.savez(path, steps=HISTORY.steps[:1], counts=HISTORY.counts)
    elif kind == "pickle":
        np.savez(path, steps=HISTORY.steps, counts=np.array([{}], dtype=object))
    elif kind == "folder":
        path.mkdir()
    elif kind == "npy":
        np.save(tmp_path / "a.npy", HISTORY.counts)
        (tmp_path / "a.npy").rename(path)
    with pytest.raises(MelcodecError, match=r"usage\.npz"):
        read_history(path)
