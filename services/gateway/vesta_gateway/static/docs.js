// Shows /openapi.json: resources, their calls, what goes in and comes out, and a form to try a call. Loads nothing else.
"use strict";

const DEPTH_MAX = 4;
let api;

const element = (name, attributes = {}, ...children) => {
  const node = Object.assign(document.createElement(name), attributes);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

const resolve = (schema) => {
  if (!schema || !schema.$ref) return schema || {};
  const found = schema.$ref.slice(2).split("/").reduce((at, part) => at[part], api);
  return { ...found, ...schema, $ref: undefined, title: schema.$ref.split("/").pop() };
};

const typeOf = (schema) => {
  const found = resolve(schema);
  if (found.enum) return found.enum.filter((value) => !value.endsWith("_UNSPECIFIED")).join(" | ");
  if (found.type === "array") return `list of ${typeOf(found.items)}`;
  if (found.additionalProperties && !found.properties) return `map of ${typeOf(found.additionalProperties)}`;
  const bounds = [];
  if (found.minimum !== undefined || found.maximum !== undefined) bounds.push(`${found.minimum ?? "…"} to ${found.maximum ?? "…"}`);
  if (found.maxLength !== undefined) bounds.push(`${found.maxLength} characters`);
  if (found.pattern && found.pattern.length < 60) bounds.push(found.pattern);
  const name = found.title || [].concat(found.type || "anything")[0];
  return [name, found.format, ...bounds].filter(Boolean).join(", ");
};

const propertiesTable = (schema, required, depth, hideReadOnly) => {
  const found = resolve(schema);
  const inner = found.type === "array" ? resolve(found.items) : found;
  if (!inner.properties || depth > DEPTH_MAX) return null;
  const rows = Object.entries(inner.properties)
    .filter(([, property]) => !(hideReadOnly && property.readOnly))
    .map(([name, property]) => {
      const nested = () => propertiesTable(property, [], depth + 1, hideReadOnly);
      const known = resolve(property.type === "array" ? property.items : property);
      const more = element("details", {}, element("summary", { className: "quiet", textContent: "fields" }));
      more.addEventListener("toggle", () => more.childElementCount === 1 && more.append(nested() ?? ""));
      return element("tr", {},
        element("td", {}, element("code", { textContent: name }), (inner.required || []).includes(name) ? " *" : ""),
        element("td", {},
          element("span", { className: "quiet", textContent: `${typeOf(property)}${property.readOnly ? ", set by the server" : ""}` }),
          property.description ? element("div", { textContent: property.description }) : null,
          known.properties ? more : null));
    });
  return element("table", {}, ...rows);
};

const contentOf = (holder) => Object.entries((holder && holder.content) || {})[0] || [];

const sample = (schema, depth = 0) => {
  const found = resolve(schema);
  if (found.enum) return found.enum[1] || found.enum[0];
  if (found.type === "array") return depth > 2 ? [] : [sample(found.items, depth + 1)];
  if (found.properties) {
    const wanted = Object.entries(found.properties).filter(([name, property]) => !property.readOnly && name !== "name" && name !== "etag");
    const shown = depth ? wanted.filter(([name]) => (found.required || []).includes(name)) : wanted.slice(0, 8);
    return Object.fromEntries(shown.map(([name, property]) => [name, sample(property, depth + 1)]));
  }
  return { integer: 0, number: 0, boolean: false, object: {} }[[].concat(found.type)[0]] ?? "";
};

const tryForm = (path, verb, operation) => {
  const [bodyType, body] = contentOf(operation.requestBody);
  const inputs = operation.parameters.map((parameter) => [parameter, element("input", { placeholder: typeOf(parameter.schema).slice(0, 60) })]);
  const isFile = bodyType === "*/*";
  const text = !bodyType ? null : isFile ? element("input", { type: "file" })
    : element("textarea", { value: JSON.stringify(sample(body.schema), null, 2), spellcheck: false });
  const output = element("pre", { hidden: true });
  const form = element("form", {},
    ...inputs.map(([parameter, input]) => element("label", {}, element("span", {}, element("code", { textContent: parameter.name }), parameter.required ? " *" : ""), input)),
    text, element("button", { textContent: "Call" }), output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    output.hidden = false;
    output.textContent = "…";
    try {
      output.textContent = await call(path, verb, inputs, isFile ? text.files[0] : text && text.value, isFile);
    } catch (error) {
      output.textContent = String(error);
    }
  });
  return form;
};

const call = async (path, verb, inputs, body, isFile) => {
  const query = new URLSearchParams();
  let target = path;
  for (const [parameter, input] of inputs) {
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.append(parameter.name, input.value);
  }
  const headers = { authorization: `Bearer ${document.getElementById("key").value}` };
  if (body && !isFile) headers["content-type"] = "application/json";
  const answer = await fetch(`${target}${query.size ? `?${query}` : ""}`, { method: verb.toUpperCase(), headers, body: body || undefined });
  const type = answer.headers.get("content-type") || "";
  const head = `${answer.status} ${answer.statusText}  ${answer.headers.get("x-request-id") || ""}\n\n`;
  if (type.startsWith("application/json")) return head + JSON.stringify(await answer.json(), null, 2);
  if (type.startsWith("text/event-stream")) {
    const reader = answer.body.getReader();
    const first = await reader.read();
    await reader.cancel();
    return head + new TextDecoder().decode(first.value);
  }
  return `${head}${(await answer.arrayBuffer()).byteLength} bytes of ${type}`;
};

const showOperation = (path, verb, operation) => {
  const node = element("details", { className: "operation" },
    element("summary", {}, element("span", { className: `verb ${verb}`, textContent: verb.toUpperCase() }),
      element("code", { textContent: path }), element("span", { className: "quiet", textContent: operation.summary })));
  node.dataset.words = `${path} ${operation.operationId} ${operation.description}`.toLowerCase();
  node.addEventListener("toggle", () => {
    if (node.childElementCount > 1) return;
    const [, body] = contentOf(operation.requestBody);
    const [answerType, answer] = contentOf(operation.responses["200"]);
    const parameters = operation.parameters.map((parameter) => element("tr", {},
      element("td", {}, element("code", { textContent: parameter.name }), parameter.required ? " *" : ""),
      element("td", {}, element("span", { className: "quiet", textContent: typeOf(parameter.schema) }),
        parameter.description ? element("div", { textContent: parameter.description }) : null)));
    const answerSchema = answer && (answer.schema.contentSchema || answer.schema);
    node.append(element("div", {},
      ...operation.description.split("\n\n").map((part) => element("p", { textContent: part })),
      parameters.length ? element("h4", { textContent: "Parameters" }) : null, parameters.length ? element("table", {}, ...parameters) : null,
      body ? element("h4", { textContent: `Body: ${typeOf(body.schema)}` }) : null, body ? propertiesTable(body.schema, [], 0, true) : null,
      element("h4", { textContent: `Answer: ${answerSchema ? typeOf(answerSchema) : ""} (${answerType || "none"})` }),
      answerSchema ? propertiesTable(answerSchema, [], 0, false) : null,
      element("h4", { textContent: "Try it" }), tryForm(path, verb, operation)));
  });
  return node;
};

const show = () => {
  const byTag = new Map(api.tags.map((tag) => [tag.name, { ...tag, operations: [] }]));
  for (const [path, verbs] of Object.entries(api.paths)) {
    for (const [verb, operation] of Object.entries(verbs)) byTag.get(operation.tags[0]).operations.push(showOperation(path, verb, operation));
  }
  const main = document.getElementById("operations");
  main.replaceChildren(...api.info.description.split("\n\n").map((part) => element("p", { textContent: part })));
  for (const tag of byTag.values()) {
    document.getElementById("tags").append(element("a", { href: `#${tag.name}`, textContent: tag.name }));
    main.append(element("section", {}, element("h2", { id: tag.name, textContent: tag.name }),
      element("p", { className: "quiet", textContent: tag.description }), ...tag.operations));
  }
};

document.getElementById("find").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  for (const section of document.querySelectorAll("section")) {
    const nodes = [...section.querySelectorAll("details.operation")];
    for (const node of nodes) node.hidden = !words.every((word) => node.dataset.words.includes(word));
    section.hidden = nodes.every((node) => node.hidden);
  }
});

fetch("/openapi.json").then((answer) => answer.json()).then((document_) => { api = document_; show(); })
  .catch((error) => document.getElementById("operations").replaceChildren(element("p", { textContent: `The description could not be read: ${error}` })));
