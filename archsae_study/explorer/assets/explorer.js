// The explorer: list, search, filters, one or two features in full, links, keyboard.
(() => {
  "use strict";
  const archsae = globalThis.archsae;
  const { element, visible, number, percent, count } = archsae;

  const METRICS = [
    ["density", "density", percent, "Share of the held-out tokens on which it fires"],
    ["maximum", "maximum", number, "Largest activation, in the units of its dictionary, which the help names"],
    ["stability", "stability", number, "Mean centred cosine with its match in every other seed"],
    ["probe", "probe", number, "Held-out AUROC of this feature alone for the topic that it tells best"],
    ["purity", "purity", percent, "Share of its activation mass on its heaviest token"],
  ];
  const SHOWN_FIRST = ["stability", "probe", "density", "purity", "maximum"];  // where the list has no room for all
  const SORT = "stability desc";  // what the list begins with
  const TELLS = 0.6;  // AUROC from which a feature alone tells its topic
  const COLUMN = 86, INDEX_COLUMN = 76, NAME_COLUMN = 190, PHONE_NAME_COLUMN = 124, PHONE = 480;  // pixels
  const PLACES = [
    ["any", "everything"], ["index", "index"], ["token", "token it fires on"], ["promoted", "promoted token"], ["topic", "topic"],
  ];
  const KEYS = [
    ["/", "search"], ["j or ↓", "next feature in the list"], ["k or ↑", "previous feature in the list"],
    ["Home, End", "first, last feature in the list"], ["d", "next dictionary"], ["f", "filters"],
    ["c", "compare: keep this feature and choose another"], ["x", "swap the two features"],
    ["y", "copy the feature as JSON"], ["l", "copy the link to it"], ["t", "light or dark"],
    ["Esc", "leave the search, the comparison or the feature"], ["?", "this help"],
  ];
  const ICONS = {
    sun: "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10Zm0-5v3m0 14v3M2 12h3m14 0h3M4.9 4.9 7 7m10 10 2.1 2.1m0-14.2L17 7M7 17l-2.1 2.1",
    help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4m0 3.5v.5M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Z",
    filter: "M3 5h18M6 12h12M10 19h4",
    search: "M10.5 3a7.5 7.5 0 1 0 0 15 7.5 7.5 0 0 0 0-15ZM16 16l5 5",
    close: "M5 5l14 14M19 5 5 19",
    back: "M15 4l-8 8 8 8",
  };

  const icon = (name) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
  };

  const iconButton = (name, label, onclick, extra = {}) =>
    element("button", { type: "button", class: "ax-icon", "aria-label": label, title: label, onclick, ...extra }, icon(name));

  const remembered = (name) => {
    try { return localStorage.getItem(name); } catch { return null; }
  };
  const remember = (name, value) => {
    try { localStorage.setItem(name, value); } catch { /* storage is switched off: the choice lasts for this page */ }
  };

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = element("textarea", { class: "ax-hidden-copy" });
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  class Explorer {
    constructor(root, source, { links = true, theme = null } = {}) {
      Object.assign(this, { root, source, links });
      this.about = source.index.about;
      this.dictionaries = new Map(this.about.dictionaries.map((each, i) => [each.key, { ...each, colour: i % 4 }]));
      this.rows = [...this.dictionaries.values()].flatMap((dictionary) => this.rowsOf(dictionary));
      this.byId = new Map(this.rows.map((row) => [row.id, row]));
      this.query = "";
      this.place = "any";
      this.ranges = new Map();
      this.topic = "";
      this.hideDead = true;
      this.chosen = [];  // ids of the one or two features on show
      this.active = 0;
      this.loaded = new Map();
      this.build();
      this.setTheme(theme ?? remembered("archsae-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
      this.table.on("tableBuilt", () => {
        this.filter();
        if (!this.follow()) this.showWelcome();
        root.dataset.ready = "true";
      });
    }

    // --- data ---

    rowsOf({ key, n_features: size, colour }) {
      const columns = this.source.index.features[key];
      return Array.from({ length: size }, (_, feature) => {
        const row = Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[feature]]));
        const { topic, probe, probe_topic: told } = row;
        const tells = probe === null || (told === topic && probe >= TELLS);
        return { ...row, id: `${key}/${feature}`, key, feature, colour, topic: tells ? topic : null,
          name: this.bare(row.name) };
      });
    }

    /** A name without the topic at its end, which stands beside it where the feature tells it. */
    bare(name) {
      const ending = this.about.topics.map((topic) => ` · ${topic}`).find((each) => name.endsWith(each));
      return ending ? name.slice(0, -ending.length) : name;
    }

    summary(key, feature) {
      return this.byId.get(`${key}/${feature}`);
    }

    load(kind, key, shard) {
      const name = `${kind}/${key}/${shard}`;
      if (!this.loaded.has(name)) {
        const loading = this.source.load(kind, key, shard);
        loading.catch(() => this.loaded.delete(name));
        this.loaded.set(name, loading);
      }
      return this.loaded.get(name);
    }

    /** A feature and the anchors it is made of. */
    async fetch({ key, feature }) {
      const { shard_size: size, anchor_shard_size: anchorSize } = this.source.index;
      const found = (await this.load("features", key, Math.floor(feature / size)))[feature % size];
      const used = found.archetypes ? found.archetypes.anchors.map((each) => each.anchor) : [];
      const shards = await Promise.all([...new Set(used.map((anchor) => Math.floor(anchor / anchorSize)))]
        .map((shard) => this.load("anchors", key, shard)));
      const anchors = new Map(shards.flat().filter((each) => used.includes(each.anchor)).map((each) => [each.anchor, each]));
      return { feature: found, anchors };
    }

    // --- page ---

    build() {
      const { root } = this;
      root.classList.add("ax");
      root.replaceChildren();
      this.status = element("span", { class: "ax-count", role: "status" });
      this.search = element("input", {
        type: "search", class: "ax-search", placeholder: "Search features", "aria-label": "Search features",
        autocomplete: "off", spellcheck: "false", oninput: () => { this.query = this.search.value; this.look(); },
      });
      this.placeSelect = element("select", { "aria-label": "Search in", class: "ax-place",
        onchange: () => { this.place = this.placeSelect.value; this.look(); } },
      ...PLACES.map(([value, label]) => element("option", { value }, label)));
      this.tabs = element("div", { class: "ax-tabs", role: "group", "aria-label": "Dictionary" });
      const choices = [...this.dictionaries.values()].map((each) => [each.key, each.label]);
      for (const [key, label] of choices.length > 1 ? [...choices, ["", "all"]] : choices) {
        this.tabs.append(element("button", { type: "button", "data-key": key, onclick: () => this.setDictionary(key) },
          key ? element("span", { class: `ax-dot ax-colour-${this.dictionaries.get(key).colour}` }) : null, visible(label)));
      }
      this.filterPanel = this.buildFilters();
      this.filterButton = iconButton("filter", "Filters (f)", () => this.toggleFilters(), { "aria-expanded": "false" });
      this.tableBox = element("div", { class: "ax-list-table" });
      this.listBox = element("section", { class: "ax-list", "aria-label": "Features" },
        element("div", { class: "ax-tools" },
          element("label", { class: "ax-search-box" }, icon("search"), this.search), this.placeSelect, this.filterButton),
        this.filterPanel,
        element("div", { class: "ax-list-head" }, this.status, this.buildSort()),
        this.tableBox);
      this.panels = element("div", { class: "ax-panels" });
      this.toast = element("div", { class: "ax-toast", role: "status" });
      this.tooltip = element("div", { class: "ax-tooltip", role: "tooltip", hidden: true });
      this.help = this.buildHelp();
      const header = element("header", { class: "ax-header" },
        element("div", { class: "ax-brand" }, element("b", {}, visible(this.about.title)),
          element("small", {}, visible(`${this.about.model} · layer ${this.about.layer}`))),
        this.tabs,
        element("div", { class: "ax-header-buttons" },
          iconButton("sun", "Light or dark (t)", () => this.toggleTheme()),
          iconButton("help", "Keyboard and explanations (?)", () => this.help.showModal())));
      root.append(header, element("main", { class: "ax-main" }, this.listBox, this.panels), this.toast, this.tooltip, this.help);
      this.buildTable();
      this.setDictionary(this.about.dictionaries[0].key, false);
      this.listen();
    }

    buildFilters() {
      const range = ([field, label, , hint]) => {
        const input = (side) => element("input", { type: "number", step: "any", placeholder: side === 0 ? "from" : "to",
          "aria-label": `${side === 0 ? "Least" : "Largest"} ${label}`, "data-field": field,
          oninput: (event) => this.setRange(field, side, event.target.value) });
        return element("div", { class: "ax-range", title: hint },
          element("span", {}, label, field === "density" || field === "purity" ? " %" : ""), input(0), input(1));
      };
      this.topicSelect = element("select", { "aria-label": "Topic", onchange: () => { this.topic = this.topicSelect.value; this.look(); } },
        element("option", { value: "" }, "any topic"),
        ...this.about.topics.map((topic) => element("option", { value: topic }, archsae.plain(topic))));
      this.deadBox = element("input", { type: "checkbox", checked: true,
        onchange: () => { this.hideDead = this.deadBox.checked; this.filter(); } });
      return element("form", { class: "ax-filters", hidden: true, onsubmit: (event) => event.preventDefault() },
        ...METRICS.map(range),
        this.about.topics.length ? element("label", { class: "ax-range" }, element("span", {}, "topic"), this.topicSelect) : null,
        element("label", { class: "ax-check" }, this.deadBox, "hide dead features"),
        element("button", { type: "button", class: "ax-button", onclick: () => this.resetFilters() }, "Reset"));
    }

    buildSort() {
      this.sortSelect = element("select", { "aria-label": "Sort by", onchange: () => {
        const [field, direction] = this.sortSelect.value.split(" ");
        this.table.setSort(field, direction);
      } },
      ...[["feature", "index", "asc", "↑"], ...METRICS.flatMap(([field, label]) => [[field, label, "desc", "↓"], [field, label, "asc", "↑"]])]
        .map(([field, label, direction, arrow]) => element("option", { value: `${field} ${direction}` }, `${label} ${arrow}`)));
      return element("label", { class: "ax-sort" }, "sort ", this.sortSelect);
    }

    buildHelp() {
      const terms = METRICS.map(([, label, , hint]) => [element("dt", {}, label), element("dd", {}, hint)]).flat();
      const dialog = element("dialog", { class: "ax-help", "aria-label": "Keyboard and explanations",
        onclick: (event) => { if (event.target === dialog) dialog.close(); } },
      element("div", {},
        element("header", {}, element("h2", {}, "Keyboard"), iconButton("close", "Close", () => dialog.close())),
        element("dl", { class: "ax-keys" }, ...KEYS.flatMap(([key, what]) =>
          [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)])),
        element("h2", {}, "What the columns say"), element("dl", { class: "ax-terms" }, ...terms),
        element("p", {}, "A name is computed: the tokens that carry most of a feature's activation mass and more than their share, or the "
          + "tokens right before; “…” where they carry less than half. A topic stands beside it where the mass per token is at least "
          + `twice that in any other and the feature alone tells that topic with an AUROC of ${TELLS} or more; 0.5 is chance. A search for a topic `
          + "lists the highest probe score first. No person or model judged it."),
        element("h2", {}, "Where this comes from"),
        element("p", {}, visible(`${this.about.model}, residual stream after block ${this.about.layer}; ${this.about.text}; `
          + `${count(this.about.heldout_tokens)} held-out tokens of ${count(this.about.heldout_documents)} documents. ${this.about.note}`)),
        element("ul", {}, ...this.about.dictionaries.map((each) => element("li", {}, visible(
          `${each.label}: ${count(each.n_features)} features of ${each.d_model} dimensions${each.k === null ? "" : `, k = ${each.k}`}`
          + `, codes in units of ${each.units}`
          + `${each.seed === null ? "" : `, seed ${each.seed}`}`
          + `${each.delta === null ? "" : `, δ = ${each.delta}`}${each.r2 === null ? "" : `, held-out R² ${number(each.r2)}`}`))))));
      return dialog;
    }

    buildTable() {
      const scale = Object.fromEntries(METRICS.map(([field]) => {
        let largest = 1e-12;  // a spread call would not take thousands of arguments everywhere
        for (const row of this.rows) largest = Math.max(largest, row[field] ?? 0);
        return [field, largest];
      }));
      const share = (field, value) => {
        if (value === null || value <= 0) return 0;
        if (field === "density") return Math.max(0.02, 1 + Math.log10(value / scale.density) / 5);  // five decades
        return field === "probe" ? Math.max(0, 2 * value - 1) : value / scale[field];
      };
      const metric = ([field, label, format, hint]) => ({
        field, title: label, headerTooltip: hint, sorter: "number", sorterParams: { alignEmptyValues: "bottom" }, width: COLUMN,
        headerSortStartingDir: "desc", hozAlign: "right", headerHozAlign: "right",
        formatter: (cell) => element("span", { class: "ax-cell" }, format(cell.getValue()),
          element("span", { class: "ax-cell-bar", style: `width:${(100 * share(field, cell.getValue())).toFixed(1)}%` })),
      });
      const topics = this.about.topics.length ? ` and in topics (${archsae.plain(this.about.topics.join(", "))})` : "";
      this.nothing = element("div", { class: "ax-nothing" }, element("p", {}, "No feature fits."),
        element("small", {}, `A search looks in names, in the tokens on which most of a feature's activation lies, in the tokens that it promotes${topics}.`));
      this.table = new globalThis.Tabulator(this.tableBox, {
        data: this.rows, index: "id", layout: "fitColumns", height: "100%", rowHeight: 38, placeholder: this.nothing,
        columnDefaults: { resizable: false, headerSortTristate: false },
        initialSort: [{ column: SORT.split(" ")[0], dir: SORT.split(" ")[1] }],
        columns: [
          { field: "feature", title: "feature", sorter: "number", width: INDEX_COLUMN, formatter: (cell) => {
            const row = cell.getData();
            return element("span", { class: "ax-id" }, element("span", { class: `ax-dot ax-colour-${row.colour}` }), String(row.feature));
          } },
          { field: "name", title: "name", sorter: "string", minWidth: 124, formatter: (cell) =>
            element("span", { class: "ax-called" }, element("span", { class: "ax-name" }, visible(cell.getValue())), this.topicTag(cell.getData())) },
          ...METRICS.map(metric),
        ],
        rowFormatter: (row) => row.getElement().classList.toggle("ax-chosen", this.chosen.includes(row.getData().id)),
      });
      this.table.on("rowClick", (event, row) => this.choose(row.getData().id));
      this.table.on("dataFiltered", (filters, rows) => {
        const total = this.rows.filter((row) => !this.dictionary || row.key === this.dictionary).length;
        this.status.textContent = `${count(rows.length)} of ${count(total)} features`;
      });
      this.table.on("dataSorted", (sorters) => {
        if (sorters.length) this.sortSelect.value = `${sorters[0].field} ${sorters[0].dir}`;
        this.fitColumns();
        this.keepAddress();
      });
      this.fitColumns();
      new ResizeObserver(() => this.fitColumns()).observe(this.tableBox);
    }

    /** Columns that the list has room for; the one that it is sorted by always stays. */
    fitColumns() {
      if (!this.table.initialized) {
        this.table.on("tableBuilt", () => this.fitColumns());
        return;
      }
      const width = this.tableBox.clientWidth, name = width < PHONE ? PHONE_NAME_COLUMN : NAME_COLUMN;
      const room = Math.floor((width - INDEX_COLUMN - name) / COLUMN);
      const sorted = this.table.getSorters()[0]?.field;
      const known = SHOWN_FIRST.filter((field) => this.rows.some((row) => row[field] !== null));
      const order = [...known.filter((field) => field === sorted), ...known.filter((field) => field !== sorted)];
      const shown = new Set(order.slice(0, Math.max(1, room)));
      const state = [...shown].sort().join();
      if (state !== this.columnsShown) {
        this.columnsShown = state;
        for (const [field] of METRICS) this.table[shown.has(field) ? "showColumn" : "hideColumn"](field);
        this.table.redraw(true);
      }
    }

    // --- list ---

    setDictionary(key, refilter = true) {
      this.dictionary = key;
      for (const tab of this.tabs.children) tab.setAttribute("aria-pressed", String(tab.dataset.key === key));
      if (refilter) this.filter();
    }

    setRange(field, side, text) {
      const range = this.ranges.get(field) ?? [null, null];
      const value = text === "" || Number.isNaN(Number(text)) ? null : Number(text);
      range[side] = value === null ? null : value / this.scaled(field);
      this.ranges.set(field, range);
      this.filter();
    }

    /** What a field's values are multiplied with where people read and type them: shares are percentages. */
    scaled(field) {
      return field === "density" || field === "purity" ? 100 : 1;
    }

    resetFilters() {
      this.ranges.clear();
      this.topic = "";
      this.hideDead = true;
      this.filterPanel.reset();
      this.look();
    }

    /** The list after another search or topic: by probe score, once, where a topic is looked for. */
    look() {
      const asked = this.query.trim().toLowerCase();
      const topics = this.about.topics.map((topic) => topic.toLowerCase());
      const named = asked.length > 2 && topics.some((topic) => topic.startsWith(asked));
      const wanted = this.topic !== "" || named || (asked !== "" && this.place === "topic");
      if (wanted && !this.wantsTopic) this.table.setSort("probe", "desc");
      this.wantsTopic = wanted;
      this.filter();
    }

    toggleFilters() {
      this.filterPanel.hidden = !this.filterPanel.hidden;
      this.filterButton.setAttribute("aria-expanded", String(!this.filterPanel.hidden));
      if (!this.filterPanel.hidden) this.filterPanel.querySelector("input").focus();
    }

    /** What the search asks of a row, as a function. */
    matcher() {
      const text = this.query.trim().toLowerCase();
      if (!text) return () => true;
      const index = /^#?(\d+)$/.exec(text);
      const holds = (token) => token.toLowerCase().includes(text);
      const places = {
        index: (row) => index !== null && row.feature === Number(index[1]),
        token: (row) => row.tokens.some(holds),
        promoted: (row) => row.promoted.some(holds),
        topic: (row) => row.topic !== null && holds(row.topic),
      };
      if (this.place !== "any") return places[this.place];
      return (row) => Object.values(places).some((fits) => fits(row)) || holds(row.name);
    }

    filter() {
      if (!this.table.initialized) return;
      const fits = this.matcher();
      const ranges = [...this.ranges].filter(([, range]) => range.some((end) => end !== null));
      const within = (row) => ranges.every(([field, [least, most]]) => row[field] !== null
        && (least === null || row[field] >= least) && (most === null || row[field] <= most));
      this.table.setFilter((row) => (!this.dictionary || row.key === this.dictionary)
        && (!this.hideDead || row.density > 0 || /^#?\d+$/.test(this.query.trim()))
        && (!this.topic || row.topic === this.topic) && within(row) && fits(row));
      this.keepAddress();
    }

    // --- features ---

    choose(id, record = true) {
      const row = this.byId.get(id);
      if (!row) return;
      const before = this.chosen;
      this.chosen = this.chosen.slice();
      this.chosen[this.comparing ? 1 : 0] = id;
      this.toast.classList.remove("ax-visible");
      this.highlight([...before, ...this.chosen]);
      this.show(record);
    }

    get comparing() {
      return this.waiting || this.chosen.length === 2;
    }

    highlight(ids) {
      for (const id of new Set(ids)) {
        const row = this.table.getRow(id);
        if (row) row.reformat();
      }
    }

    /** Keep the feature on show and let the next choice stand beside it. */
    compare() {
      if (!this.chosen.length) return;
      if (this.comparing) {
        this.waiting = false;
        this.keep(this.chosen[0]);
      } else {
        this.waiting = true;
        this.show(false);
        this.say("Choose a second feature");
      }
    }

    keep(id) {
      const before = this.chosen;
      this.waiting = false;
      this.chosen = [id];
      this.highlight(before);
      this.show();
    }

    swap() {
      if (this.chosen.length !== 2) return;
      this.chosen.reverse();
      this.show();
    }

    close() {
      const before = this.chosen;
      this.waiting = false;
      this.chosen = [];
      this.highlight(before);
      this.showWelcome();
      this.keepAddress();
    }

    topicTag({ topic }) {
      return topic === null ? null : element("span", { class: "ax-topic" }, visible(topic));
    }

    showWelcome() {
      this.root.dataset.view = "list";
      const best = (label, rows) => element("section", { class: "ax-card" }, element("h3", {}, label),
        element("table", { class: "ax-table" }, element("tbody", {}, ...rows.map((row) => element("tr", {},
          element("td", {}, element("a", { class: "ax-link", href: `#${row.id}`, onclick: (event) => { event.preventDefault(); this.choose(row.id); } },
            this.badge(row.key), ` ${row.feature}`)),
          element("td", {}, element("span", { class: "ax-name" }, visible(row.name)), " ", this.topicTag(row)))))));
      const alive = this.rows.filter((row) => row.density > 0);
      const top = (field, rows = alive) => rows.filter((row) => row[field] !== null)
        .sort((a, b) => b[field] - a[field]).slice(0, 6);
      const lists = [
        ["Most stable over seeds", top("stability", alive.filter((row) => row.density >= 1e-3))],
        ["Tells its topic best", this.about.topics.flatMap((topic) => top("probe", alive.filter((row) => row.topic === topic)).slice(0, 1))],
        ["Purest token", top("purity", alive.filter((row) => row.density >= 1e-3))],
        ["Densest", top("density")],
      ].filter(([, rows]) => rows.length);
      this.panels.replaceChildren(element("div", { class: "ax-welcome" },
        element("h2", {}, "Choose a feature, or start here"),
        element("div", { class: "ax-welcome-lists" }, ...lists.map(([label, rows]) => best(label, rows))),
        element("p", { class: "ax-foot" }, visible(this.about.note))));
    }

    async show(record = true) {
      const ids = this.chosen.slice(), turn = (this.turn = (this.turn ?? 0) + 1);
      this.waiting &&= ids.length < 2;
      this.root.dataset.view = ids.length === 2 ? "compare" : this.waiting ? "choose" : "feature";
      if (record && this.links && this.address() !== location.hash) history.pushState(null, "", this.address());
      let found;
      try {
        found = await Promise.all(ids.map((id) => this.fetch(this.byId.get(id))));
      } catch (error) {
        this.say(`The details could not be loaded: ${error.message}`);
        return;
      }
      if (turn !== this.turn) return;  // another feature was chosen meanwhile
      const shared = this.shared(found.map((each) => each.feature.summary));
      const panels = found.map((each, i) => this.panel(ids[i], each, i, shared));
      if (this.waiting) {
        panels.push(element("div", { class: "ax-panel ax-empty" }, element("p", {}, "Choose a second feature from the list.")));
      }
      this.panels.replaceChildren(...panels);
      this.shown = found;
    }

    /** Tokens that two features have in common. */
    shared(summaries) {
      const common = (field) => {
        const [first, second] = summaries.map((summary) => new Set(summary[field].map((each) => each.token)));
        return second ? new Set([...first].filter((token) => second.has(token))) : new Set();
      };
      return { tokens: common("tokens"), promoted: common("promoted"), suppressed: common("suppressed") };
    }

    badge(key) {
      const { label, colour } = this.dictionaries.get(key);
      return element("span", { class: `ax-badge ax-colour-${colour}` }, visible(label));
    }

    panel(id, { feature, anchors }, place, shared) {
      const row = this.byId.get(id), body = element("div", { class: "ax-body" });
      const button = (label, hint, onclick) => element("button", { type: "button", class: "ax-button", title: hint, onclick }, label);
      const panel = { body, shared, badge: (key) => this.badge(key), bare: (name) => this.bare(name), summary: (key, index) => this.summary(key, index),
        open: (key, index) => { this.active = place; this.replace(place, `${key}/${index}`); } };
      archsae.showFeature(panel, feature, anchors);
      return element("article", { class: "ax-panel", "data-id": id, "aria-label": `Feature ${id}` },
        element("header", { class: "ax-panel-head" },
          iconButton("back", "Back to the list", () => this.close(), { class: "ax-icon ax-back" }),
          element("div", { class: "ax-panel-title" },
            element("div", { class: "ax-panel-id" }, this.badge(row.key), element("b", {}, `feature ${row.feature}`),
              this.topicTag(row)),
            element("h2", { class: "ax-name" }, visible(row.name))),
          element("div", { class: "ax-panel-buttons" },
            button(this.comparing ? "Close" : "Compare", this.comparing ? "Show the other feature alone" : "Put another feature beside it (c)",
              () => (this.chosen.length === 2 ? this.keep(this.chosen[1 - place]) : this.compare())),
            button("Copy link", "Copy the link to this feature (l)", () => this.copyLink(id)),
            button("Copy JSON", "Copy everything shown here as JSON (y)", () => this.copyJson(place)))),
        body);
    }

    replace(place, id) {
      const before = this.chosen;
      this.chosen = this.chosen.slice();
      this.chosen[place] = id;
      this.highlight([...before, id]);
      this.show();
    }

    async copyJson(place = 0) {
      const { feature, anchors } = this.shown[place];
      const text = JSON.stringify({ dictionary: this.dictionaries.get(this.chosen[place].split("/")[0]), ...feature,
        anchors: [...anchors.values()] }, null, 1);
      this.say((await copy(text)) ? "Copied as JSON" : "Copying is not allowed here");
    }

    async copyLink(id) {
      const link = this.links ? location.href.replace(/#.*|$/, () => this.address(id)) : `#${id}`;
      this.say((await copy(link)) ? "Link copied" : link);
    }

    say(text) {
      this.toast.textContent = text;
      this.toast.classList.add("ax-visible");
      clearTimeout(this.quiet);
      this.quiet = setTimeout(() => this.toast.classList.remove("ax-visible"), 2500);
    }

    // --- links, keyboard, theme ---

    /** What is on show, as the address says it: `#dictionary/feature?search=…`. */
    address(features = this.chosen.join("/")) {
      const list = this.listState();
      return `#${features}${list.size ? `?${list}` : ""}`;
    }

    /** The dictionary of the feature on show, else the first. */
    usualList() {
      return this.chosen.length ? this.byId.get(this.chosen[0]).key : this.about.dictionaries[0].key;
    }

    /** What the list shows where it is not what it begins with. */
    listState() {
      const sort = this.sortSelect.value, limits = [...this.ranges];
      const all = { search: this.query.trim(), in: this.place === "any" ? "" : this.place, topic: this.topic,
        list: this.dictionary === this.usualList() ? "" : this.dictionary || "all", sort: sort === SORT ? "" : sort,
        dead: this.hideDead ? "" : "shown",
        ...Object.fromEntries(limits.map(([field, ends]) => [field, ends.every((end) => end === null) ? "" : ends.map((end) => end ?? "").join("…")])) };
      return new URLSearchParams(Object.entries(all).filter(([, value]) => value !== ""));
    }

    /** Set the list to what an address says of it; what cannot be is left as it begins. */
    setListState(text) {
      const said = new URLSearchParams(text), among = (name, values) => (values.includes(said.get(name)) ? said.get(name) : "");
      this.query = this.search.value = said.get("search") ?? "";
      this.place = this.placeSelect.value = among("in", PLACES.map(([place]) => place)) || "any";
      this.topic = this.topicSelect.value = among("topic", this.about.topics);
      this.hideDead = this.deadBox.checked = said.get("dead") !== "shown";
      this.ranges.clear();
      for (const input of this.filterPanel.querySelectorAll("[data-field]")) input.value = "";
      for (const [field] of METRICS.filter(([each]) => /^[^…]*…[^…]*$/.test(said.get(each)))) {
        const ends = said.get(field).split("…").map((end) => (end === "" || Number.isNaN(Number(end)) ? null : Number(end)));
        this.ranges.set(field, ends);
        this.filterPanel.querySelectorAll(`[data-field="${field}"]`).forEach((input, side) => {
          input.value = ends[side] === null ? "" : Number((this.scaled(field) * ends[side]).toPrecision(12));
        });
      }
      const list = said.get("list");
      this.setDictionary(list === "all" ? "" : this.dictionaries.has(list) ? list : this.usualList(), false);
      const sort = among("sort", [...this.sortSelect.options].map((option) => option.value)) || SORT;
      this.wantsTopic = true;  // the order is the address's own
      this.settled = false;
      this.table.setSort(...sort.split(" "));
      this.look();
      this.settled = true;
    }

    keepAddress() {
      const address = this.address();
      if (!this.links || !this.settled || address === location.hash) return;
      history.replaceState(null, "", address === "#" ? location.pathname + location.search : address);
    }

    /** Show what the address names, `#dictionary/feature` or `#dictionary/feature/dictionary/feature`; false where none. */
    follow() {
      if (!this.links) return false;
      const [named, list = ""] = location.hash.slice(1).split(/\?(.*)/s);
      let parts = [];
      try { parts = decodeURIComponent(named).split("/"); } catch { /* no name of a feature */ }
      const pairs = parts.length === 2 || parts.length === 4 ? [parts.slice(0, 2), parts.slice(2)] : [];
      const ids = pairs.filter((pair) => pair.length).map((pair) => pair.join("/"));
      const known = ids.length > 0 && ids.every((id) => this.byId.has(id));
      if (named && !known) this.say("The link names no feature of this page");
      const before = this.chosen;
      this.waiting = false;
      this.chosen = known ? ids : [];
      this.setListState(list);
      this.highlight([...before, ...this.chosen]);
      if (known) this.show(false);
      return known;
    }

    step(distance) {
      const rows = this.table.getRows("active");
      if (!rows.length) return;
      const now = this.chosen[this.comparing ? 1 : 0];
      const at = rows.findIndex((row) => row.getData().id === now);
      const to = Math.max(0, Math.min(rows.length - 1, at < 0 && Number.isFinite(distance) ? 0 : at + distance));
      this.choose(rows[to].getData().id);
      this.table.scrollToRow(rows[to], "nearest", false).catch(() => {});
    }

    nextDictionary() {
      const keys = [...this.tabs.children].map((tab) => tab.dataset.key);
      this.setDictionary(keys[(keys.indexOf(this.dictionary) + 1) % keys.length]);
    }

    escape() {
      const { activeElement: focused } = this.root.getRootNode();
      if (this.search === focused) this.search.blur();
      else if (this.filterPanel.contains(focused)) this.toggleFilters();
      else if (this.comparing) { this.waiting = false; this.keep(this.chosen[0]); }
      else if (this.chosen.length) this.close();
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || this.help.open) return;
      if (event.key === "Escape") { this.escape(); return; }
      const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
      if (typing && !(event.target === this.search && ["ArrowDown", "ArrowUp", "Enter"].includes(event.key))) return;
      const actions = {
        "/": () => { this.search.focus(); this.search.select(); },
        j: () => this.step(1), ArrowDown: () => this.step(1), Enter: () => this.search === event.target && this.step(1),
        k: () => this.step(-1), ArrowUp: () => this.step(-1), Home: () => this.step(-Infinity), End: () => this.step(Infinity),
        d: () => this.nextDictionary(), f: () => this.toggleFilters(), c: () => this.compare(), x: () => this.swap(),
        y: () => this.chosen.length && this.copyJson(this.chosen.length - 1), t: () => this.toggleTheme(),
        l: () => this.chosen.length && this.copyLink(this.chosen.join("/")), "?": () => this.help.showModal(),
      };
      if (!Object.hasOwn(actions, event.key) || (event.key === "Enter" && !typing)) return;
      event.preventDefault();
      event.stopPropagation();
      actions[event.key]();
    }

    listen() {
      const where = this.links ? document : this.root;
      where.addEventListener("keydown", (event) => this.key(event));
      if (this.links) window.addEventListener("popstate", () => this.follow() || this.close());
      const tip = (event) => {
        const token = event.target.closest?.(".ax-token");
        if (!token) { this.tooltip.hidden = true; return; }
        const { token: text, value, about } = token.dataset;
        this.tooltip.replaceChildren(element("code", { class: "ax-code" }, archsae.token(text)),
          element("b", {}, value), element("small", {}, about));
        this.tooltip.hidden = false;
        const box = this.root.getBoundingClientRect(), at = token.getBoundingClientRect(), own = this.tooltip.getBoundingClientRect();
        const left = Math.max(8, Math.min(at.left - box.left, box.width - own.width - 8));
        const above = at.top - box.top - own.height - 6;
        this.tooltip.style.left = `${left}px`;
        this.tooltip.style.top = `${above > 0 ? above : at.bottom - box.top + 6}px`;
      };
      this.root.addEventListener("pointerover", tip);
      this.root.addEventListener("click", tip);
      this.root.addEventListener("scroll", () => { this.tooltip.hidden = true; }, true);
      this.root.addEventListener("pointerleave", () => { this.tooltip.hidden = true; });
    }

    setTheme(theme) {
      this.theme = theme;
      this.root.dataset.theme = theme;
    }

    toggleTheme() {
      this.setTheme(this.theme === "dark" ? "light" : "dark");
      if (this.links) remember("archsae-theme", this.theme);  // in a notebook, the notebook's theme is the one to start with
    }
  }

  /** Show an explorer in `root`. `source` has the `index` and `load(kind, key, shard)`, a promise of that shard. */
  archsae.mount = (root, source, options) => new Explorer(root, source, options);
})();
