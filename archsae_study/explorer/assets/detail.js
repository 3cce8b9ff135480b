// One feature in full, as a panel.
(() => {
  "use strict";
  const archsae = globalThis.archsae;
  const { element, visible, number, percent, count } = archsae;

  const card = (heading, note, ...children) =>
    element("section", { class: "ax-card" },
      element("h3", {}, heading, note ? element("small", {}, note) : null), ...children);

  const tile = (label, value, hint) =>
    element("div", { class: "ax-tile", title: hint }, element("dt", {}, label), element("dd", {}, value));

  /** A context with every token shaded by its value. `limit` is the value of full shade. */
  const context = ({ tokens, values, marked, document: source, position, topic }, limit) => {
    const about = `document ${source}, position ${position}${topic === null ? "" : `, ${archsae.plain(topic)}`}`;
    const text = element("span", { class: "ax-context-text" });
    tokens.forEach((token, i) => {
      const value = values[i], shade = Math.min(1, value / limit);
      text.append(element("span", {
        class: `ax-token${value > 0 ? " ax-on" : ""}${i === marked ? " ax-marked" : ""}`,
        style: value > 0 ? `--shade:${shade.toFixed(3)}` : null,
        "data-token": token, "data-value": value, "data-about": about,
      }, visible(token)));
    });
    const shown = values[marked] > 0 ? element("span", { class: "ax-context-value" }, number(values[marked])) : null;
    return element("li", { class: "ax-context" }, text, shown);
  };

  const featureLink = (panel, key, feature, ...children) =>
    element("a", { class: "ax-link", href: `#${key}/${feature}`, "data-dictionary": key, "data-feature": feature,
      onclick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        panel.open(key, feature);
      } }, ...children);

  const tiles = (summary) => element("dl", { class: "ax-tiles" },
    tile("density", percent(summary.density), "Share of the held-out tokens on which it fires"),
    tile("maximum", number(summary.maximum), "Largest activation"),
    tile("mean active", number(summary.mean_active), "Mean of its non-zero activations"),
    tile("stability", number(summary.stability),
      "Mean centred cosine with its match in every other seed"),
    tile("probe", number(summary.probe), summary.probe_topic === null ? "Held-out AUROC for the topic it tells best"
      : `Held-out AUROC for ${archsae.plain(summary.probe_topic)}, the topic it tells best in training`),
    tile("purity", percent(summary.purity), "Share of its activation mass on its heaviest token"),
    tile("entropy", summary.entropy === null ? "–" : `${number(summary.entropy)} bits`,
      "Entropy of the token under its 20 largest activations"));

  const bandName = ({ quantile }) => (quantile === 1 ? "top" : `${Math.round(100 * quantile)} % quantile`);

  const contexts = (bands, maximum) => card("Contexts by quantile of activation", "hover a token for its exact value",
    ...bands.map((band) => element("div", { class: "ax-band" },
      element("div", { class: "ax-band-name" }, element("b", {}, bandName(band)), ` ${number(band.value)}`),
      element("ul", {}, ...band.contexts.map((each) => context(each, maximum))))));

  const neighbours = (panel, { nearest, counterparts }) => {
    const row = ({ dictionary, feature, cosine }) => element("tr", {},
      element("td", {}, featureLink(panel, dictionary, feature, panel.badge(dictionary), ` ${feature}`)),
      element("td", { class: "ax-name" }, visible(panel.summary(dictionary, feature).name)),
      element("td", { class: "ax-figure" }, number(cosine)));
    return card("Nearest features", "cosine of the atoms", element("table", { class: "ax-table" },
      element("tbody", {}, ...counterparts.map(row), ...nearest.map(row))));
  };

  const matches = (panel, found) => card("Its match in other seeds", "best one-to-one matching of the dictionaries",
    element("table", { class: "ax-table ax-matches" },
      element("thead", {}, element("tr", {},
        ...["seed", "feature", "its name there"].map((name) => element("th", {}, name)),
        element("th", { class: "ax-figure", title: "Cosine of the two atoms" }, "cosine"),
        element("th", { class: "ax-figure", title: "Cosine of the atoms less their dictionaries' means" }, "centred"),
        element("th", { class: "ax-figure", title: "Pearson correlation of the activations on held-out tokens" }, "firing r"))),
      element("tbody", {}, ...found.map((match) => element("tr", {},
        element("td", {}, String(match.seed)), element("td", {}, String(match.feature)),
        element("td", { class: "ax-name" }, visible(panel.bare(match.name))),
        element("td", { class: "ax-figure" }, number(match.cosine)),
        element("td", { class: "ax-figure" }, number(match.centred_cosine)),
        element("td", { class: "ax-figure" }, number(match.firing_correlation)))))));

  const MINOR = 0.5;  // share of the heaviest anchor's weight below which an anchor is folded away

  const archetypes = (made, anchors) => {
    const heaviest = made.anchors[0]?.weight, minor = made.anchors.filter((each) => each.weight < MINOR * heaviest);
    const anchor = (each) => element("details", { class: "ax-anchor", open: each === made.anchors[0] },
      element("summary", {}, element("b", {}, `anchor ${each.anchor}`),
        element("span", { class: "ax-weight", title: "The weights of all anchors sum to 1" },
          element("span", { style: `width:${100 * each.weight}%` })),
        element("span", { class: "ax-figure" }, `weight ${number(each.weight)} · cosine ${number(each.cosine)}`)),
      element("ul", {}, ...(anchors.get(each.anchor)?.contexts ?? []).map((near) => context(near, 1))));
    return card("Anchors it is made of",
      `${number(made.effective_anchors)} effective anchors · ‖Λ‖ ${number(made.relaxation)} · hull share ${percent(made.hull_share)}`,
      ...made.anchors.filter((each) => !minor.includes(each)).map(anchor),
      minor.length ? element("details", { class: "ax-anchor ax-minor" },
        element("summary", {}, `${minor.length} lighter anchor${minor.length === 1 ? "" : "s"}, weight ${number(minor[0].weight)} and less`), ...minor.map(anchor)) : null);
  };

  /** Fill `panel.body` with a feature. `panel` gives `open`, `summary`, `badge`, `shared`. */
  archsae.showFeature = (panel, feature, anchors) => {
    const { summary } = feature, dead = feature.firings === 0;
    const shared = panel.shared;
    const lens = element("div", { class: "ax-lens" },
      card("Promoted tokens", "logits", archsae.tokenBars(summary.promoted, (t) => t.logit, number, shared.promoted)),
      card("Suppressed tokens", "logits", archsae.tokenBars(summary.suppressed, (t) => t.logit, number, shared.suppressed)));
    lens.lastChild.classList.add("ax-negative");
    const parts = [tiles(summary)];
    if (dead) {
      parts.push(element("p", { class: "ax-dead" }, "This feature never fires on the held-out tokens."));
    } else {
      parts.push(element("div", { class: "ax-row" },
        card("Activations", `${count(feature.firings)} non-zero, log counts`,
          archsae.histogram(feature.histogram, feature.bands)),
        card("Tokens it fires on", "share of activation mass",
          archsae.tokenBars(summary.tokens, (t) => t.share, percent, shared.tokens))));
    }
    parts.push(lens);
    if (feature.archetypes) parts.push(archetypes(feature.archetypes, anchors));
    if (!dead) parts.push(contexts(feature.bands, summary.maximum));
    if (!dead && feature.topics.length) {
      parts.push(card("Firing by topic", "share of the topic's tokens", archsae.topicBars(feature.topics)));
    }
    if (feature.matches.length) parts.push(matches(panel, feature.matches));
    parts.push(neighbours(panel, feature));
    panel.body.replaceChildren(...parts);
  };
})();
