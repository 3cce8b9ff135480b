// The explorer in a notebook's output: the kernel sends the index and the shards when they are asked for.
export default {
  async render({ model, el }) {
    const waiting = new Map();
    const receive = ({ name, content, error }) => {
      if (!waiting.has(name)) return;
      const { resolve, reject } = waiting.get(name);
      waiting.delete(name);
      if (error) reject(new Error(error));
      else resolve(content);
    };
    const ask = (name) => new Promise((resolve, reject) => {
      waiting.set(name, { resolve, reject });
      model.send({ name });
    });
    model.on("msg:custom", receive);
    // A tree of its own: the notebook's styles of lists and tables do not reach in, nor the explorer's out.
    const host = document.createElement("div");
    host.dataset.lmSuppressShortcuts = "true";  // else JupyterLab takes d, x, y and c for commands on cells
    const sheet = document.createElement("style");
    sheet.textContent = style;
    const root = document.createElement("div");
    root.tabIndex = -1;
    host.attachShadow({ mode: "open" }).append(sheet, root);
    el.append(host);
    const theme = () => ({ false: "dark", true: "light" })[document.body.dataset.jpThemeLight] ?? null;
    const load = (kind, key, shard) => ask(`${kind}/${key}/${shard}`);
    const explorer = globalThis.archsae.mount(root, { index: await ask("index"), load }, { links: false, theme: theme() });
    const follow = new MutationObserver(() => theme() && explorer.setTheme(theme()));
    follow.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
    return () => { follow.disconnect(); model.off("msg:custom", receive); };
  },
};
