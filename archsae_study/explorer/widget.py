"""The explorer in JupyterLab, for dictionaries in the kernel.

An `anywidget` with the page's own scripts. Shards travel as messages when a feature is opened, so nothing is written to
disk and the notebook file does not grow. A frame with the page inside (`srcdoc`) would not do: it has no folder from
which shards could be loaded.
"""

import json
from typing import Any

import anywidget
import pandas as pd

from archsae_core.text import visible
from archsae_study.explorer import page
from archsae_study.explorer.table import features_frame

STATIC_ROWS = 12
"""Features in the table that stands where no kernel runs."""


def module() -> str:
    """The page's scripts and style sheets as one ECMAScript module."""
    # Tabulator's script looks for module loaders first; here it has to become a global as in a page.
    table = f"(function (module, exports, define) {{\n{page.asset('tabulator.min.js')}\n}}).call(globalThis);"
    style = json.dumps(page.asset("tabulator.min.css") + page.asset("explorer.css"))
    return "\n".join([table, *map(page.asset, page.SCRIPTS), f"const style = {style};", page.asset("widget.js")])


class FeatureWidget(anywidget.AnyWidget):
    """Features of one or several dictionaries, to search and to click.

    Where no kernel runs, such as in a notebook on the web, the first rows of `features_frame` stand in its place.
    """

    _esm = module()

    def __init__(self, source: page.Explorable) -> None:
        super().__init__()
        self._source = source
        self.on_msg(self._answer)

    def _answer(self, widget: Any, message: Any, buffers: Any) -> None:
        name = message.get("name") if isinstance(message, dict) else None
        self.send(answer(self._source, name))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, *rest = bundle if isinstance(bundle, tuple) else (bundle,)
        frame = features_frame(self._source).sort_values("stability", ascending=False).head(STATIC_ROWS)
        shown = frame.reset_index()[["dictionary", "feature", "name", "density", "maximum", "stability", "purity"]]
        shown = shown.assign(name=shown["name"].map(visible))
        with pd.option_context("display.html.use_mathjax", False):  # what is between two $ of a name is no formula
            static = {"text/html": shown.to_html(index=False, border=0, float_format="{:.3g}".format)}
        return ((data or {}) | static, *rest) if rest else (data or {}) | static


def answer(source: page.Explorable, name: object) -> dict[str, Any]:
    """What the page gets for a name: `index` or `kind/dictionary/shard`; an `error` for any other."""
    try:
        if name == "index":
            return {"name": name, "content": page.plain(page.index(source))}
        kind, key, number = str(name).split("/")
        return {"name": name, "content": page.plain(page.shard(source, kind, key, int(number)))}
    except (KeyError, ValueError, IndexError) as error:
        return {"name": name, "error": f"{name!r} is no part of this explorer ({error})"}
