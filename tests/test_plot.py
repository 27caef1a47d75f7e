#!/usr/bin/env python3
"""The figures show what the results say. Run with `python3 -m unittest tests/test_plot.py`."""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "benches" / "plot"


def load():
    loader = importlib.machinery.SourceFileLoader("plot", str(SCRIPT))
    loader_spec = importlib.util.spec_from_loader("plot", loader)
    module = importlib.util.module_from_spec(loader_spec)
    loader.exec_module(module)
    return module


plot = load()


def append(engine, p50_ns, regime="warm", samples=5000):
    percentile = {"50.000000": p50_ns, "99.000000": 2 * p50_ns, "99.990000": 9 * p50_ns}
    return {
        "jobname": "append",
        "error": 0,
        "job options": {"rw": "known-append", "ioengine": engine, "iodepth": "128"},
        "read": {"runtime": 1000, "total_ios": samples, "clat_ns": {"N": samples, "percentile": percentile}},
        "datastore": {"regime": regime},
    }


def finish(engine, chunks, runtime_ms, **own):
    return {
        "jobname": "finish",
        "error": 0,
        "job options": {"rw": "known-finish", "ioengine": engine, "nrfiles": str(chunks)},
        "read": {"runtime": runtime_ms, "total_ios": chunks},
        "datastore": {"regime": "warm", **own},
    }


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = pathlib.Path(folder.name) / "results"
        self.figures = pathlib.Path(folder.name) / "figures"
        self.results.mkdir()

    def put(self, name, *jobs, **more):
        (self.results / name).write_text(json.dumps({"jobs": list(jobs), **more}), encoding="utf-8")

    def run_plot(self, *more):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = plot.main(["--results", str(self.results), "--figures", str(self.figures), *more])
        return code, err.getvalue()

    def svg(self, name):
        text = (self.figures / name).read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        space = "{http://www.w3.org/2000/svg}"
        return root, [node.text for node in root.iter(f"{space}text")], [node.text for node in root.iter(f"{space}title")]


class Reading(Case):
    def test_repetitions_become_their_median(self):
        self.put("a.json", append("sync", 100), append("sync", 300), append("sync", 200))
        figure = plot.latencies(plot.read_results(self.results))
        self.assertEqual([(p, round(s * 1e9)) for p, s in figure["warm"]["sync"]], [(50.0, 200), (99.0, 400)])

    def test_a_percentile_needs_samples_beyond_it(self):
        self.put("a.json", append("sync", 100, samples=9_000))
        self.assertEqual([p for p, _ in plot.latencies(plot.read_results(self.results))["warm"]["sync"]], [50, 99])
        self.put("a.json", append("sync", 100, samples=20_000))
        self.assertEqual(len(plot.latencies(plot.read_results(self.results))["warm"]["sync"]), 3)

    def test_the_regime_and_shared_options_are_found(self):
        job = append("sync", 100)
        del job["datastore"], job["job options"]["rw"]
        self.put("cold disk.json", job, **{"global options": {"rw": "known-append"}})
        self.assertEqual(list(plot.latencies(plot.read_results(self.results))), ["cold disk"])
        job["job options"]["description"] = "described"
        self.put("cold disk.json", job, **{"global options": {"rw": "known-append"}})
        self.assertEqual(list(plot.latencies(plot.read_results(self.results))), ["described"])

    def test_failed_jobs_are_left_out(self):
        self.put("a.json", {**append("sync", 100), "error": 5}, append("auto", 100))
        self.assertEqual(list(plot.latencies(plot.read_results(self.results))["warm"]), ["auto"])

    def test_the_fastest_regime_and_the_base_come_first(self):
        self.put("a.json", append("auto", 900, "slow"), append("serial-std", 1000, "slow"), append("serial-std", 10, "warm"))
        figure = plot.latencies(plot.read_results(self.results))
        self.assertEqual((list(figure), list(figure["slow"])), (["warm", "slow"], ["serial-std", "auto"]))

    def test_what_cannot_be_read_is_named(self):
        for text in ("{", "[]", '{"jobs": 1}', '{"jobs": [1]}', '{"jobs": [{"job options": {"nrfiles": "x"}}]}'):
            (self.results / "bad.json").write_text(text, encoding="utf-8")
            code, err = self.run_plot()
            self.assertEqual(code, 1, text)
            self.assertIn("bad.json", err)

    def test_nothing_to_draw_says_what_to_do(self):
        code, err = self.run_plot()
        self.assertEqual(code, 1)
        self.assertIn("benches/jobs", err)
        self.assertFalse(self.figures.exists())


class Simulating(Case):
    def test_the_largest_measured_one_in_proportion(self):
        self.put("a.json", finish("auto", 1000, 9), finish("auto", "100k", 200), finish("serial-std", 1000, 10))
        code, err = self.run_plot("--simulate", "10000000")
        self.assertEqual((code, err), (0, ""))
        made = json.loads((self.results / "simulated.json").read_text(encoding="utf-8"))["jobs"]
        own = {job["job options"]["ioengine"]: (job["read"]["runtime"], job["datastore"]) for job in made}
        self.assertEqual(own["auto"][0], 20_000)
        self.assertEqual(own["auto"][1]["simulated_from_chunks"], 100_000)
        self.assertEqual(own["serial-std"][0], 100_000)
        self.assertTrue(all(datastore["simulated"] is True for _, datastore in own.values()))
        _, words, tips = self.svg("finish-time.svg")
        self.assertTrue(any(word.startswith("simulated: ") for word in words))
        self.assertIn("auto, 10,000,000 chunks: 20 s, simulated", tips)
        self.assertIn("auto, 100,000 chunks: 0.2 s, measured", tips)
        # Again: from what was measured, not from what was simulated.
        self.assertEqual(self.run_plot("--simulate", "10000000")[0], 0)
        self.assertEqual(json.loads((self.results / "simulated.json").read_text(encoding="utf-8"))["jobs"], made)

    def test_a_measured_point_takes_the_place_of_a_simulated_one(self):
        self.put("a.json", finish("auto", 1000, 9), finish("auto", 1000, 7, simulated=True))
        self.assertEqual(plot.finish_times(plot.read_results(self.results))["warm"]["auto"], [(1000, 0.009, False)])

    def test_without_a_measurement_nothing_is_simulated(self):
        self.put("a.json", append("auto", 100))
        code, err = self.run_plot("--simulate", "1000")
        self.assertEqual(code, 1)
        self.assertIn("nothing to simulate from", err)


class Drawing(Case):
    def test_all_figures_are_drawn_with_their_words(self):
        self.put(
            "a.json",
            *(append(engine, ns) for engine, ns in (("serial-std", 3_000_000), ("auto", 20_000), ("my<own>", 50_000))),
            *(finish("serial-std", n, n) for n in (1000, 10_000)),
            *(finish("auto", n, n / 100) for n in (1000, 10_000)),
        )
        self.assertEqual(self.run_plot(), (0, ""))
        _, words, tips = self.svg("append-latency.svg")
        for word in ("Appends of 128 known chunks: latency of a batch by engine", "warm", "p99", "10 µs", "latency (log scale)", "my<own>"):
            self.assertIn(word, words)
        self.assertIn("auto, p50: 0.02 ms", tips)
        _, words, _ = self.svg("finish-time.svg")
        for word in ("1 k", "10 k", "unique chunks (log scale)", "10 s", "measured"):
            self.assertIn(word, words)
        self.assertFalse(any(word.startswith("simulated") for word in words))
        _, words, _ = self.svg("ratios.svg")
        for word in ("append p50, warm", "150× auto", "60× my<own>", "finish 10 k, warm", "100× auto"):
            self.assertIn(word, words)

    def test_the_same_results_give_the_same_bytes(self):
        self.put("a.json", append("serial-std", 10), append("auto", 7), append("uring", 7))
        self.run_plot()
        first = (self.figures / "append-latency.svg").read_bytes()
        self.run_plot()
        self.assertEqual((self.figures / "append-latency.svg").read_bytes(), first)

    def test_labels_keep_their_order_and_their_distance(self):
        places = plot.spread_labels([100, 101, 99, 20], 10, 200, 15)
        self.assertEqual([round(p) for p in places], [100, 115, 85, 20])
        places = plot.spread_labels([199, 198, 200], 10, 200, 15)
        self.assertEqual([round(p) for p in places], [185, 170, 200])
        places = plot.spread_labels([11, 10], 10, 200, 15)
        self.assertEqual([round(p) for p in places], [25, 10])

    def test_scales_end_at_powers_of_ten(self):
        scale = plot.Scale([0.002, 3.0], 0, 400)
        self.assertEqual((scale.low, scale.high, round(scale.at(0.1))), (-3, 1, 200))
        self.assertEqual([plot.duration(t) for t in scale.ticks()], ["1 ms", "10 ms", "100 ms", "1 s", "10 s"])
        flat = plot.Scale([1000, 1000], 0, 100)
        self.assertEqual((flat.low, flat.high), (3, 4))


if __name__ == "__main__":
    unittest.main()
