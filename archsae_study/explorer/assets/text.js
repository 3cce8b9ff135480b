// Text of documents and tokens as DOM nodes. It is data from anywhere: it only ever becomes text nodes.
(() => {
  "use strict";
  const archsae = (globalThis.archsae ??= {});

  // Controls, format characters (bidirectional marks, zero-width characters), lone surrogates, line and paragraph
  // separators: what cannot be seen, or changes how its surroundings are seen.
  const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
  const SIGNS = new Map([["\n", "⏎"], ["\t", "⇥"], ["\r", "␍"]]);

  const codePoint = (character) =>
    `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  const sign = (character) => SIGNS.get(character) ?? `⟨${codePoint(character)}⟩`;

  /** The text with every invisible character written out, as a plain string. */
  archsae.plain = (text) => text.replace(INVISIBLE, sign);

  /** The same as nodes: written-out characters stand in a span of their own. */
  archsae.visible = (text) => {
    const fragment = document.createDocumentFragment();
    let done = 0;
    for (const found of text.matchAll(INVISIBLE)) {
      if (found.index > done) fragment.append(text.slice(done, found.index));
      fragment.append(archsae.element("span", { class: "ax-sign", title: codePoint(found[0]) }, sign(found[0])));
      done = found.index + found[0].length;
    }
    if (done < text.length) fragment.append(text.slice(done));
    return fragment;
  };

  /** A token on its own: spaces at its ends are shown, since they tell tokens apart. */
  archsae.token = (text) => {
    const [, before, middle, after] = /^( *)([^]*?)( *)$/.exec(text);
    const fragment = document.createDocumentFragment();
    const spaces = (count) => archsae.element("span", { class: "ax-space" }, "␣".repeat(count));
    if (before) fragment.append(spaces(before.length));
    fragment.append(archsae.visible(middle));
    if (after) fragment.append(spaces(after.length));
    if (!text) fragment.append(archsae.element("span", { class: "ax-sign" }, "part of a character"));
    return fragment;
  };

  /** A new element. Children are nodes, strings (which become text) or null. */
  archsae.element = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  const MISSING = "–";

  /** A number with three significant digits; a dash where there is none. */
  archsae.number = (value, digits = 3) => {
    if (value === null || value === undefined) return MISSING;
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-4) return value.toExponential(digits - 1).replace("-", "−");
    const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    return value.toFixed(Math.min(decimals, 6)).replace("-", "−");
  };

  /** A share as a percentage. */
  archsae.percent = (value) => {
    if (value === null || value === undefined) return MISSING;
    if (value === 0) return "0 %";
    const percent = 100 * value;
    return `${percent < 0.001 ? "<0.001" : percent.toFixed(percent < 0.1 ? 3 : percent < 10 ? 2 : 1)} %`;
  };

  /** A count with thin spaces between thousands. */
  archsae.count = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
})();
