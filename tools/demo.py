#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Show in the browser what a network makes of an image or video at any budget.

Pick one and move the slider: the prediction, the subnet that the budget buys,
its cost and the time measured here follow. Nothing leaves this machine.
"""

import argparse
import html
import os
import threading
from collections import Counter
from pathlib import Path
from time import perf_counter

import mmcv
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel
from mutualnet_mm.cli import add_device, one_line_errors, tool_parser
from mutualnet_mm.cost import machine_name
from mutualnet_mm.deploy.inputs.reader import naming
from mutualnet_mm.visualization.palette import line_style

SCORE = 0.3  # that objects are drawn above, as in mmdet's inferencer
RUNS, ENOUGH_MS = 5, 1000  # timed; no further one begins after so long
MACS_OF = dict(
    classification='of an image',
    detection='of backbone and neck',
    action='of each of {} views',
)
CSS = """
.facts {display: flex; flex-wrap: wrap; gap: 8px}
.facts div {flex: 1 1 150px; padding: 8px 14px; border-radius: 6px;
  border: 1px solid var(--border-color-primary);
  background: var(--background-fill-secondary)}
.facts span {display: block; font-size: 12px; opacity: 0.75}
.facts b {font-size: 20px}
.picture img {width: 100%; height: 100%; object-fit: contain}
"""


class Demo:
    """Predicts for the page with a network that nothing else uses."""

    def __init__(self, net: AdaptiveModel) -> None:
        self.net, self.table, self.task = net, net.table, net.table.task
        # A data set of arrays, such as CIFAR, has them in RGB order.
        self._takes_files = self.task == 'action' or (
            'LoadImageFromFile' in str(net.cfg.test_dataloader)
        )
        self._lock = threading.Lock()

    def budgets(self) -> tuple:
        """Return the least and largest budget in MACs, and the step between.

        Budgets are multiples of the step, and the costs of no two of the best
        subnets differ by less: each can be reached.
        """
        macs = sorted({entry.macs for entry in self.table.pareto})
        gaps = [b - a for a, b in zip(macs, macs[1:])]
        finest = min([*gaps, max(macs[-1] // 50, 1)])
        step = 10 ** (len(str(finest)) - 1)
        least, most = (-(-m // step) * step for m in (macs[0], macs[-1]))
        return least, max(most, least + step), step

    def look(self, file, macs) -> tuple:
        """Predict a file, if there is one, with the best subnet for a budget.

        Returns:
            tuple: Scores by class, or the RGB image with the objects found,
            or None; the entry of the table; facts about both, ``{name:
            (value, explanation)}``.
        """
        entry = self.table.best(macs=macs)
        facts = self._facts(entry)
        if file is None:
            return None, entry, facts
        # No visitor gets another one's subnet, or slows it.
        with self._lock:
            self.net.use(entry.subnet)
            sample, facts['time'] = self._timed(file)
            if self.task != 'detection':
                return self._by_name(sample.pred_score.tolist()), entry, facts
            number = int((sample.pred_instances.scores > SCORE).sum())
            facts['objects'] = (str(number), f'of a score above {SCORE}')
            return self._drawn(file, sample), entry, facts

    def _facts(self, entry) -> dict:
        number, table = EngFormatter(places=1), self.table
        low, high = table.interval(entry) or (None, None)
        interval = '' if low is None else f', 95 % in {low:.4g} to {high:.4g}'
        macs_of = MACS_OF.get(self.task, 'of one input').format(table.views)
        return {
            'subnet': (str(entry.subnet), 'the best within the budget'),
            'MACs': (number(entry.macs), macs_of),
            'parameters': (number(entry.params), 'that it reads'),
            table.metric: (f'{table.score(entry):.4g}', f'tested{interval}'),
            'time': ('–', 'nothing to predict yet'),
        }

    def _timed(self, file: str) -> tuple:
        image = file
        if not self._takes_files:
            broken = 'it is not an image, or a broken one'
            with naming(f'image {file!r}', broken, 'pick another one'):
                image = mmcv.imread(file, channel_order='rgb')
        batch = self.net.prepare(image)
        times = []
        while len(times) <= RUNS and sum(times) < ENOUGH_MS:
            self.net.synchronize()
            start = perf_counter()
            (sample,) = self.net.predict(*batch)
            self.net.synchronize()
            times.append(1000 * (perf_counter() - start))
        first, *rest = times
        how = f'median of {len(rest)}, warmed up' if rest else 'the first run'
        return sample, (f'{np.median(rest or first):.3g} ms', how)

    def _by_name(self, scores: list) -> dict:
        names = self.net.file.dataset_meta.get('classes')
        names = names or [f'class {i}' for i in range(len(scores))]
        times = Counter(names)  # two classes of ImageNet are named crane
        return {
            name + f' ({i})' * (times[name] > 1): score
            for i, (name, score) in enumerate(zip(names, scores))
        }

    def _drawn(self, file: str, sample) -> np.ndarray:
        from mmdet.visualization import DetLocalVisualizer

        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = self.net.file.dataset_meta
        image = mmcv.imread(file, channel_order='rgb')
        visualizer.add_datasample(
            '', image, sample, draw_gt=False, pred_score_thr=SCORE
        )
        return visualizer.get_image()


def draw_curve(table, entry) -> Figure:
    """Draw the best subnets of a table, with one of them marked."""
    figure = Figure(figsize=(6, 2.6), layout='constrained')
    axes = figure.add_subplot(xlabel='MACs', ylabel=table.metric)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    points = [(e.macs, table.score(e)) for e in table.pareto]
    axes.plot(*zip(*points), **line_style(0))
    chosen = dict(line_style(1), markersize=10)
    axes.plot(entry.macs, table.score(entry), **chosen)
    return figure


def write_facts(facts: dict) -> str:
    """Write facts as HTML."""
    text = ''
    for fact in facts.items():
        name, value, why = (html.escape(part) for part in (fact[0], *fact[1]))
        text += f'<div data-fact="{name}"><span>{name}</span><b>{value}</b>'
        text += f'<span>{why}</span></div>'
    return f'<div class="facts">{text}</div>'


def build_page(demo: Demo, examples: list):
    """Return the page, a ``gradio.Blocks``; the first example is picked."""
    for name in examples:
        if not Path(name).is_file():
            raise UsageError(f'example {name!r} does not exist')
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
        import gradio as gr
    except ImportError as error:
        raise UsageError(
            'gradio is missing: pip install "mutualnet_mm[demo]"'
        ) from error
    least, most, step = demo.budgets()
    power = (len(str(most)) - 1) // 3
    unit = 1000**power

    def look(file, budget):
        try:
            prediction, entry, facts = demo.look(file, round(budget * unit))
        except UsageError as error:
            text = html.escape(str(error))
            raise gr.Error(text, print_exception=False) from error
        return prediction, write_facts(facts), draw_curve(demo.table, entry)

    shape = dict(height=320, elem_classes='picture')
    picked = dict(shape, value=examples[0] if examples else None)
    # Nothing that visitors upload stays for longer than an hour.
    with gr.Blocks(title='mutualnet_mm', delete_cache=(3600, 3600)) as page:
        gr.Markdown('# One network, any budget')
        with gr.Row():
            with gr.Column():
                if demo.task == 'action':
                    file = gr.Video(sources=['upload'], **picked)
                else:
                    file = gr.Image(
                        sources=['upload', 'clipboard'],
                        type='filepath',
                        image_mode=None,  # hand the file over as it is
                        **picked,
                    )
                budget = gr.Slider(
                    *(least / unit, most / unit, most / unit),
                    step=step / unit,
                    label=f'Budget in {" kMGT"[power].strip()}MACs',
                )
                if examples:
                    gr.Examples(examples, file)
            with gr.Column():
                if demo.task == 'detection':
                    prediction = gr.Image(
                        label='Prediction', buttons=['download'], **shape
                    )
                else:
                    prediction = gr.Label(
                        label='Prediction', num_top_classes=5
                    )
                facts = gr.HTML()
                curve = gr.Plot(show_label=False)
        gr.Markdown(
            f'Time is measured on {machine_name(str(demo.net.device))}: '
            "resizing to the subnet's resolution, the network and its "
            'post-processing, not reading and preprocessing.'
        )
        gr.on(
            [page.load, file.change, budget.change],
            look,
            [file, budget],
            [prediction, facts, curve],
            trigger_mode='always_last',
            show_progress='hidden',
        )
    return page


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('adaptive', help='adaptive.pth of mutualnet table')
    parser.add_argument(
        'examples', nargs='*', help='images or videos to pick from'
    )
    add_device(parser)
    host = '0.0.0.0 lets other machines in; default: %(default)s'
    parser.add_argument('--host', default='127.0.0.1', help=host)
    port = 'default: %(default)s'
    parser.add_argument('--port', type=int, default=7860, help=port)
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse_args()
    place = f'{args.host}:{args.port}'
    with one_line_errors():
        net = AdaptiveModel.from_file(args.adaptive, args.device)
        page = build_page(Demo(net), args.examples)
        try:
            page.launch(
                server_name=args.host,
                server_port=args.port,
                share=False,
                ssr_mode=False,
                quiet=True,
                css=CSS,
                footer_links=['gradio'],
                prevent_thread_lock=True,
            )
        except (OSError, OverflowError) as error:
            raise UsageError(
                f'cannot serve at {place}: use another --port, or a --host of '
                'this machine'
            ) from error
    print(f'http://{place}, Ctrl-C ends it', flush=True)
    page.block_thread()


if __name__ == '__main__':
    main()
