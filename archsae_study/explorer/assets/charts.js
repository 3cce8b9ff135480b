// Small charts as SVG nodes.
(() => {
  "use strict";
  const { element, number, percent, count } = globalThis.archsae;
  const archsae = globalThis.archsae;
  const SVG = "http://www.w3.org/2000/svg";

  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  const title = (text) => {
    const node = document.createElementNS(SVG, "title");
    node.textContent = text;
    return node;
  };

  /** Histogram of a feature's non-zero codes; counts on a logarithmic scale, with the quantiles shown below marked. */
  archsae.histogram = ({ edges, counts }, bands) => {
    const width = 420, height = 132, left = 34, right = 6, top = 6, bottom = 20;
    const largest = Math.max(1, ...counts), decades = Math.max(1, Math.ceil(Math.log10(largest + 1)));
    const end = edges[edges.length - 1];
    const x = (value) => left + ((width - left - right) * value) / end;
    const y = (value) => height - bottom - ((height - top - bottom) * Math.log10(value + 1)) / decades;
    const chart = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, class: "ax-chart", role: "img",
      "aria-label": `Histogram of ${count(counts.reduce((a, b) => a + b, 0))} non-zero activations up to ${number(end)}`,
    });
    for (let power = 0; power <= decades; power += 1) {
      const value = 10 ** power, at = y(power === 0 ? 0 : value);
      if (at < top - 1) continue;
      chart.append(
        svg("line", { x1: left, x2: width - right, y1: at, y2: at, class: "ax-grid" }),
        svg("text", { x: left - 5, y: at + 3.5, class: "ax-tick", "text-anchor": "end" },
          power === 0 ? "0" : power < 4 ? String(value) : `10${"⁰¹²³⁴⁵⁶⁷⁸⁹"[power]}`));
    }
    counts.forEach((value, i) => {
      if (!value) return;
      const from = x(edges[i]), to = x(edges[i + 1]);
      chart.append(svg("rect", {
        x: from + 0.5, y: y(value), width: Math.max(1, to - from - 1), height: height - bottom - y(value), class: "ax-bar",
      }, title(`${number(edges[i])} to ${number(edges[i + 1])}: ${count(value)} tokens`)));
    });
    for (const band of bands) {
      chart.append(svg("line", {
        x1: x(band.value), x2: x(band.value), y1: height - bottom, y2: height - bottom + 4, class: "ax-quantile",
      }, title(`${Math.round(100 * band.quantile)} % quantile: ${number(band.value)}`)));
    }
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
      chart.append(svg("text", { x: x(share * end), y: height - 5, class: "ax-tick", "text-anchor": anchor },
        number(share * end, 2)));
    }
    return chart;
  };

  /** One horizontal bar a topic: share of the topic's tokens on which the feature fires. */
  archsae.topicBars = (topics) => {
    const largest = Math.max(...topics.map((topic) => topic.rate), 1e-12);
    return element("div", { class: "ax-bars" }, ...topics.flatMap(({ topic, rate, mass }) => [
      element("span", { class: "ax-bars-label", title: archsae.plain(topic) }, archsae.visible(topic)),
      element("span", { class: "ax-bars-track" },
        element("span", { class: "ax-bars-fill", style: `width:${(100 * rate) / largest}%` })),
      element("span", { class: "ax-bars-value", title: `${percent(mass)} of its activation mass` }, percent(rate)),
    ]));
  };

  /** Tokens with a bar each: output tokens with logits, or input tokens with shares. */
  archsae.tokenBars = (tokens, value, format, shared = new Set()) => {
    const largest = Math.max(...tokens.map((token) => Math.abs(value(token))), 1e-12);
    return element("ol", { class: "ax-tokens" }, ...tokens.map((token) =>
      element("li", { class: shared.has(token.token) ? "ax-shared" : null },
        element("span", { class: "ax-tokens-fill", style: `width:${(100 * Math.abs(value(token))) / largest}%` }),
        element("code", { class: "ax-code" }, archsae.token(token.token)),
        element("span", { class: "ax-tokens-value" }, format(value(token))))));
  };
})();
