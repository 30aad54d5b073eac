'use strict';
// Draws the page from the JSON in #data. Names come from users: they reach the page as text and attribute values only, never as markup.

const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const ARROWS = {higher: ' ↑', lower: ' ↓'};
const SHAPES = ['circle', 'square', 'diamond', 'triangle'];
const COLOURS = 8;
const CROWD = 8;  // points of a plot
const directed = data.columns.filter(column => column.better);
const state = {set: 0, sort: null, image: 0, left: null, right: null, split: 50, focus: null};

const current = () => data.sets[state.set];
const columnOf = key => data.columns.find(column => column.key === key);
const place = column => data.columns.indexOf(column);

// ---- small tools ----

function el(tag, properties = {}, children = []) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, text = '') {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

/** The value of a row or null. JSON has no infinities: they come as text. */
function valueOf(values, column) {
  const value = values ? values[place(column)] : null;
  return value === null || value === undefined ? null : Number(value);
}

function format(value, column) {
  if (value === null) return '';
  return Number.isFinite(value) ? value.toFixed(column.digits) : (value > 0 ? '∞' : '−∞');
}

function heading(column) {
  return column.title + (ARROWS[column.better] || '');
}

/** Negative where a is better than b; what is missing comes last. */
function compareQuality(a, b, column) {
  if (a === null || b === null) return (a === null) - (b === null);
  return a === b ? 0 : (a > b) === (column.better === 'higher') ? -1 : 1;
}

/** The best of the values, or null where there is nothing to choose from. */
function bestOf(values, column) {
  const present = values.filter(value => value !== null);
  if (!column.better || present.length < 2) return null;
  return column.better === 'higher' ? Math.max(...present) : Math.min(...present);
}

/** teacher@20 -> ['teacher', 20]; other names are a family of their own. */
function familyOf(name) {
  const match = /^(.+)@(\d+)$/.exec(name);
  return match ? [match[1], Number(match[2])] : [name, null];
}

const families = [...new Set(data.sets.flatMap(set => set.rows.map(row => familyOf(row.name)[0])))];

function colourOf(name) {
  const number = families.indexOf(familyOf(name)[0]);
  return number < 0 ? 'var(--none)' : `var(--c${number % COLOURS})`;
}

function named(name) {
  const swatch = el('span', {className: 'swatch'});
  swatch.style.setProperty('--mark', colourOf(name));
  return [swatch, name];
}

/** Fills a select with [value, text] and keeps its choice where that still exists, else takes the preferred one. */
function fill(select, entries, preferred) {
  const kept = select.value;
  select.replaceChildren(...entries.map(([value, text]) => el('option', {value, textContent: text})));
  const wanted = [kept, preferred].find(value => entries.some(entry => String(entry[0]) === String(value)));
  if (wanted !== undefined) select.value = wanted;
}

// ---- head and notes ----

function drawHead() {
  const images = `${current().count} image${current().count === 1 ? '' : 's'}`;
  $('meta').textContent = `${data.date} · ${current().name} · ${images} · ${current().rows.length} restorers`;
  $('winners').replaceChildren(...directed.flatMap(column => {
    const rows = current().rows.filter(row => valueOf(row.values, column) !== null);
    if (rows.length < 2) return [];
    const best = rows.reduce((a, b) => compareQuality(valueOf(a.values, column), valueOf(b.values, column), column) <= 0 ? a : b);
    const ties = rows.filter(row => valueOf(row.values, column) === valueOf(best.values, column)).length - 1;
    return [el('div', {}, [
      el('dt', {textContent: `best ${heading(column)}`}),
      el('dd', {}, [el('span', {className: 'value', textContent: format(valueOf(best.values, column), column)}),
        el('span', {className: 'name', title: best.name}, [...named(best.name), ties ? ` and ${ties} more` : ''])])])];
  }));
}

function drawNotes() {
  $('command').textContent = data.command;
  $('notes').replaceChildren(...data.notes.map(note => el('p', {}, note.split('`').map(
    (part, number) => number % 2 ? el('code', {textContent: part}) : part))));
  $('warnings').hidden = !data.warnings.length;
  $('warnings').replaceChildren(...data.warnings.map(warning => el('li', {textContent: warning})));
}

// ---- table ----

function drawTable() {
  const names = ['restorer', ...data.columns.map(heading)];
  const head = el('tr', {}, names.map((name, number) => {
    const th = el('th', {scope: 'col'}, [el('button', {type: 'button', textContent: name, onclick: () => sortBy(number)})]);
    if (state.sort && state.sort.column === number) th.setAttribute('aria-sort', state.sort.down ? 'descending' : 'ascending');
    return th;
  }));
  const best = data.columns.map(column => bestOf(current().rows.map(row => valueOf(row.values, column)), column));
  const body = sortedRows().map(row => el('tr', {}, [
    el('th', {scope: 'row', title: row.name}, named(row.name)),
    ...data.columns.map((column, number) => {
      const value = valueOf(row.values, column);
      const isBest = value !== null && value === best[number];
      return el('td', isBest ? {className: 'best'} : {}, [el(isBest ? 'strong' : 'span', {textContent: format(value, column)})]);
    })]));
  $('means').replaceChildren(el('thead', {}, [head]), el('tbody', {}, body));
}

function sortedRows() {
  const rows = [...current().rows];
  if (!state.sort) return rows;
  const {column, down} = state.sort;
  const sign = down ? -1 : 1;
  if (column === 0) return rows.sort((a, b) => sign * a.name.localeCompare(b.name, 'en', {numeric: true}));
  const key = data.columns[column - 1];
  return rows.sort((a, b) => {
    const [x, y] = [valueOf(a.values, key), valueOf(b.values, key)];
    if (x === null || y === null) return (x === null) - (y === null);  // empty cells stay at the end in both directions
    return x === y ? 0 : sign * (x - y);
  });
}

/** First click: best on top; second click: the other way. */
function sortBy(column) {
  const key = column ? data.columns[column - 1] : null;
  const down = Boolean(key && key.better === 'higher');
  state.sort = {column, down: state.sort && state.sort.column === column ? !state.sort.down : down};
  drawTable();
  $('means').querySelectorAll('thead button')[column].focus();
}

// ---- plots ----

function ticksOf(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(candidate => candidate >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(tick);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (String(step / power).startsWith('2.5') ? 1 : 0));
  return ticks.map(tick => [tick, tick.toFixed(digits)]);
}

function logTicksOf(low, high) {
  const factors = high / low > 30 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push([tick, String(Number(tick.toPrecision(1)))]);
    }
  }
  return ticks;
}

function axisOf(values, log) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) {
    const margin = Math.max((high / low) ** 0.1, 1.25);
    [low, high] = [low / margin, high * margin];
    return {at: value => Math.log(value / low) / Math.log(high / low), ticks: logTicksOf(low, high)};
  }
  const margin = (high - low) * 0.12 || Math.abs(high) * 0.05 || 1;
  [low, high] = [low - margin, high + margin];
  return {at: value => (value - low) / (high - low), ticks: ticksOf(low, high, 5)};
}

/** One plot in the width of its box, so that its letters keep their size on a phone. */
function drawPlot(box, xColumn, yColumn, log) {
  const points = xColumn && yColumn ? current().rows.flatMap(row => {
    const [x, y] = [valueOf(row.values, xColumn), valueOf(row.values, yColumn)];
    const fits = Number.isFinite(x) && Number.isFinite(y) && x !== null && y !== null && !(log && x <= 0);
    return fits ? [{row, x, y, family: familyOf(row.name)[0], steps: familyOf(row.name)[1]}] : [];
  }) : [];
  if (!points.length) {
    box.replaceChildren(el('p', {className: 'hint', textContent: 'No restorer has both values.'}));
    return;
  }
  const [width, height] = [Math.max(box.clientWidth, 260), 340];
  const inner = {left: 56, right: width - 12, top: 12, bottom: height - 46};
  const [xAxis, yAxis] = [axisOf(points.map(p => p.x), log), axisOf(points.map(p => p.y), false)];
  const toX = value => inner.left + xAxis.at(value) * (inner.right - inner.left);
  const toY = value => inner.bottom - yAxis.at(value) * (inner.bottom - inner.top);
  for (const point of points) [point.px, point.py] = [toX(point.x), toY(point.y)];

  const root = svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'group',
    'aria-label': `${heading(yColumn)} over ${heading(xColumn)}, ${points.length} restorers`});
  const better = betterCorner(inner, xColumn.better || (log ? 'lower' : 'higher'), yColumn.better);
  const chains = chainsOf(points);
  root.append(better.corner);
  for (const [tick, text] of xAxis.ticks) {
    root.append(svg('line', {class: 'rule', x1: toX(tick), x2: toX(tick), y1: inner.top, y2: inner.bottom}),
      svg('text', {x: toX(tick), y: inner.bottom + 17, 'text-anchor': 'middle'}, text));
  }
  for (const [tick, text] of yAxis.ticks) {
    root.append(svg('line', {class: 'rule', x1: inner.left, x2: inner.right, y1: toY(tick), y2: toY(tick)}),
      svg('text', {x: inner.left - 7, y: toY(tick) + 4, 'text-anchor': 'end'}, text));
  }
  const middle = (inner.top + inner.bottom) / 2;
  root.append(
    svg('rect', {class: 'frame', x: inner.left, y: inner.top, width: inner.right - inner.left, height: inner.bottom - inner.top}),
    svg('text', {class: 'title', x: (inner.left + inner.right) / 2, y: height - 8, 'text-anchor': 'middle'},
      heading(xColumn) + (log ? ', log scale' : '')),
    svg('text', {class: 'title', x: 13, y: middle, 'text-anchor': 'middle', transform: `rotate(-90 13 ${middle})`}, heading(yColumn)),
    better.text, ...chains.map(drawChain),
    ...labelsOf(points, inner, [better.area, ...chains.flatMap(along)]), ...points.map(point => markOf(point, xColumn, yColumn)));
  box.replaceChildren(root);
}

function betterCorner(inner, xBetter, yBetter) {
  const right = xBetter === 'higher';
  const top = yBetter === 'higher';
  const [x, y] = [right ? inner.right : inner.left, top ? inner.top : inner.bottom];
  const [dx, dy] = [right ? -1 : 1, top ? 1 : -1];
  const arrow = {'true,true': '↗', 'true,false': '↘', 'false,true': '↖', 'false,false': '↙'}[`${right},${top}`];
  return {
    corner: svg('path', {fill: 'var(--good)', d: `M${x} ${y} h${110 * dx} Q${x} ${y} ${x} ${y + 110 * dy} z`}),
    text: svg('text', {class: 'better', x: x + 9 * dx, y: y + (top ? 19 : -10), 'text-anchor': right ? 'end' : 'start'},
      right ? `better ${arrow}` : `${arrow} better`),
    area: boxAround(x + 36 * dx, y + 14 * dy, 30, 12)};
}

/** The points of each family with several numbers of steps, fewest first. */
function chainsOf(points) {
  return families.map(family => points.filter(point => point.family === family && point.steps !== null).sort((a, b) => a.steps - b.steps))
    .filter(chain => chain.length > 1);
}

function drawChain(chain) {
  return svg('polyline', {class: 'chain', stroke: colourOf(chain[0].family), points: chain.map(p => `${p.px},${p.py}`).join(' ')});
}

/** Small boxes along the line through the points, for labels to keep away from. */
function along(chain) {
  return chain.slice(1).flatMap((end, number) => {
    const start = chain[number];
    const count = Math.ceil(Math.hypot(end.px - start.px, end.py - start.py) / 8);
    return Array.from({length: count}, (_, i) =>
      boxAround(start.px + (end.px - start.px) * i / count, start.py + (end.py - start.py) * i / count, 2));
  });
}

function boxAround(x, y, w, h = w) {
  return {left: x - w, right: x + w, top: y - h, bottom: y + h};
}

function shapeOf(name, x, y, r) {
  const shape = SHAPES[Math.max(0, families.indexOf(familyOf(name)[0])) % SHAPES.length];
  if (shape === 'circle') return svg('circle', {cx: x, cy: y, r});
  const d = {square: `M${x - r} ${y - r} h${2 * r} v${2 * r} h${-2 * r} z`,
    diamond: `M${x} ${y - 1.35 * r} l${1.35 * r} ${1.35 * r} l${-1.35 * r} ${1.35 * r} l${-1.35 * r} ${-1.35 * r} z`,
    triangle: `M${x} ${y - 1.3 * r} l${1.3 * r} ${2.3 * r} h${-2.6 * r} z`}[shape];
  return svg('path', {d});
}

function markOf(point, xColumn, yColumn) {
  const mark = shapeOf(point.row.name, point.px, point.py, 6);
  const lines = [xColumn, yColumn].map(column => `${column.title}: ${format(valueOf(point.row.values, column), column)}`);
  const attributes = {class: 'point', fill: colourOf(point.row.name), tabindex: 0, role: 'img',
    'aria-label': `${point.row.name}, ${lines.join(', ')}`};
  for (const [name, value] of Object.entries(attributes)) mark.setAttribute(name, value);
  const show = () => showTooltip(mark, [point.row.name, ...lines].join('\n'));
  for (const event of ['pointerenter', 'focus']) mark.addEventListener(event, show);
  for (const event of ['pointerleave', 'blur']) mark.addEventListener(event, () => { $('tooltip').hidden = true; });
  return mark;
}

function showTooltip(mark, text) {
  const tip = $('tooltip');
  tip.textContent = text;
  tip.hidden = false;
  const [at, size] = [mark.getBoundingClientRect(), tip.getBoundingClientRect()];
  const left = Math.min(Math.max(8, at.left + at.width / 2 - size.width / 2), document.documentElement.clientWidth - size.width - 8);
  const top = at.top - size.height - 8 > 0 ? at.top - size.height - 8 : at.bottom + 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
}

function overlap(a, b) {
  const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return w > 0 && h > 0 ? w * h : 0;
}

/** Each label takes the place around its point that hides least of points, lines and the labels before it; the further the worse. */
function labelsOf(points, inner, kept) {
  const taken = [...points.map(p => boxAround(p.px, p.py, 8)), ...kept];
  const pen = document.createElement('canvas').getContext('2d');
  pen.font = `12.5px ${getComputedStyle(document.body).fontFamily}`;
  const nodes = [];
  for (const point of points) {
    const text = labelOf(point, points);
    const [w, h] = [pen.measureText(text).width + 4, 15];
    let best = null;
    for (const distance of [10, 22, 36]) {
      for (const [ux, uy] of [[1, 0], [-1, 0], [0, -1], [0, 1], [0.8, -0.8], [0.8, 0.8], [-0.8, -0.8], [-0.8, 0.8]]) {
        const x = point.px + ux * (distance + w / 2) - (Math.abs(ux) < 1 ? ux * w * 0.1 : 0);
        const y = point.py + uy * (distance + h / 2);
        const area = boxAround(x, y, w / 2, h / 2);
        const outside = Math.max(0, inner.left - area.left) + Math.max(0, area.right - inner.right)
          + Math.max(0, inner.top - area.top) + Math.max(0, area.bottom - inner.bottom);
        const leader = distance > 10 ? along([point, {px: x, py: y}]).slice(2) : [];  // from outside of the point itself
        const hidden = taken.reduce((sum, other) => sum + [area, ...leader].reduce((part, box) => part + overlap(box, other), 0), 0);
        const cost = hidden + 60 * outside + 1.5 * (distance - 10);
        if (!best || cost < best.cost - 1e-6) best = {cost, x, y, area, leader};
      }
    }
    taken.push(best.area, ...best.leader);
    if (best.leader.length) nodes.push(svg('line', {class: 'leader', x1: point.px, y1: point.py, x2: best.x, y2: best.y}));
    nodes.push(svg('text', {class: 'label', x: best.x, y: best.y + 4, 'text-anchor': 'middle'}, text));
  }
  return nodes;
}

/** The name; in a crowd only @N where the family has its name at its least N already. */
function labelOf(point, points) {
  const first = points.every(other => other.family !== point.family || other.steps >= point.steps);
  if (points.length > CROWD && !first) return `@${point.steps}`;
  const name = point.row.name;
  return name.length > 24 ? `${name.slice(0, 14)}…${name.slice(-8)}` : name;
}

function drawPlots() {
  const seconds = columnOf(data.seconds);
  drawPlot($('plot-distortion'), columnOf($('distortion').value), columnOf($('perception').value), false);
  drawPlot($('plot-latency'), seconds, columnOf($('latency').value), true);
  const present = families.filter(family => current().rows.some(row => familyOf(row.name)[0] === family));
  $('legend').replaceChildren(...present.map(family => {
    const icon = svg('svg', {width: 16, height: 16, viewBox: '0 0 16 16', 'aria-hidden': 'true'});
    const shape = shapeOf(family, 8, 8, 5);
    shape.setAttribute('fill', colourOf(family));
    icon.append(shape);
    return el('li', {}, [icon, ` ${family}`]);
  }));
}

// ---- pictures ----

const image = () => current().images[state.image];
const pictureOf = (shown, name) => shown.pictures.find(picture => picture.name === name);

function describe(shown, name) {
  return `${shown.name}, ${name}`;
}

function drawSlider() {
  const shown = image();
  for (const side of ['left', 'right']) {
    const picture = pictureOf(shown, state[side]);
    Object.assign($(`stage-${side}`), {src: picture.src, alt: describe(shown, picture.name)});
    $(`tag-${side}`).textContent = picture.name;
    $(`tag-${side}`).title = picture.name;
  }
  $('stage-note').textContent = `Drag, or use the arrow keys. ${partOf(shown)}`;
  moveSplit(state.split);
  drawDuel(shown);
}

function partOf(shown) {
  const [w, h] = shown.whole;
  if (w === shown.side && h === shown.side) return `The whole image, ${w}×${h} pixels.`;
  return `A square of ${shown.side} pixels at (${shown.left}, ${shown.top}) of ${w}×${h}.`;
}

function moveSplit(percent) {
  state.split = Math.min(100, Math.max(0, percent));
  $('stage-left').style.clipPath = `inset(0 ${100 - state.split}% 0 0)`;
  $('handle').style.left = `${state.split}%`;
  $('handle').setAttribute('aria-valuenow', Math.round(state.split));
  $('handle').setAttribute('aria-valuetext', `${Math.round(state.split)} % ${state.left}, the rest ${state.right}`);
  $('tag-left').hidden = state.split < 8;
  $('tag-right').hidden = state.split > 92;
}

function drawDuel(shown) {
  const sides = [state.left, state.right];
  const head = el('tr', {}, ['this image', ...sides].map(text => el('th', {scope: 'col', textContent: text})));
  const rows = directed.flatMap(column => {
    const values = sides.map(name => valueOf(shown.values[name], column));
    if (values.every(value => value === null)) return [];
    const best = values[0] === values[1] ? null : bestOf(values, column);
    return [el('tr', {}, [el('th', {scope: 'row', textContent: heading(column)}), ...values.map(value =>
      el('td', value !== null && value === best ? {className: 'best'} : {}, [format(value, column) || '–']))])];
  });
  $('duel').replaceChildren(el('thead', {}, [head]), el('tbody', {}, rows));
}

function drawCrops() {
  const shown = image();
  const best = directed.map(column => bestOf(shown.pictures.map(p => valueOf(shown.values[p.name], column)), column));
  $('crop-grid').replaceChildren(...shown.pictures.map(picture => {
    const view = el('img', {src: picture.src, alt: `${describe(shown, picture.name)}, enlarged`, draggable: false});
    const label = `${picture.name}: arrow keys look elsewhere`;
    const pane = el('div', {className: 'window', tabIndex: 0, role: 'group', 'aria-label': label}, [view]);
    const list = directed.flatMap((column, number) => {
      const value = valueOf(shown.values[picture.name], column);
      if (value === null) return [];
      return [el('dt', {textContent: heading(column)}),
        el('dd', {className: value === best[number] ? 'best' : '', textContent: format(value, column)})];
    });
    return el('figure', {}, [pane, el('figcaption', {}, [el('div', {className: 'name'}, named(picture.name)), el('dl', {}, list)])]);
  }));
  aimCrops(...(state.focus || shown.focus));
}

/** Shows the part of the pictures around (x, y), shares of their side, as far as it lies inside. */
function aimCrops(x, y) {
  const zoom = Number($('crops-zoom').value);
  const margin = 0.5 / zoom;
  state.focus = [x, y].map(value => Math.min(Math.max(value, margin), 1 - margin));
  const [left, top] = state.focus.map(value => `${-100 * zoom * (value - margin)}%`);
  for (const view of $('crop-grid').querySelectorAll('.window img')) Object.assign(view.style, {width: `${100 * zoom}%`, left, top});
}

function drawRanking() {
  const row = $('ranking-row').value;
  const column = columnOf($('ranking-metric').value);
  const sign = $('ranking-order').value === 'worst' ? -1 : 1;
  const images = current().images.map((shown, number) => ({shown, number, value: column ? valueOf(shown.values[row], column) : null}));
  const ranked = images.filter(entry => entry.value !== null && pictureOf(entry.shown, row));
  ranked.sort((a, b) => sign * compareQuality(a.value, b.value, column));
  $('ranking-list').replaceChildren(...ranked.map(({shown, number, value}) => el('li', {}, [
    el('button', {type: 'button', onclick: () => openInSlider(number, row)}, [
      el('img', {src: pictureOf(shown, row).src, alt: describe(shown, row)}),
      el('div', {className: 'name', textContent: shown.name}),
      el('div', {className: 'rank'}, [`${column.title} `, el('strong', {textContent: format(value, column)}),
        ` · rank ${shown.ranks[row][place(column)]} of ${current().count}`])])])));
}

function openInSlider(number, row) {
  Object.assign(state, {image: number, left: row, right: data.truth, focus: null});
  [$('slider-left').value, $('slider-right').value] = [row, data.truth];
  chooseImage(number);
  $('slider').scrollIntoView();
  $('handle').focus({preventScroll: true});
}

function chooseImage(number) {
  state.image = number;
  state.focus = null;
  $('slider-image').value = $('crops-image').value = String(number);
  drawSlider();
  drawCrops();
}

// ---- choices ----

function fillChoices() {
  const metrics = directed.map(column => [column.key, column.title]);
  const first = metrics.length ? metrics[0][0] : '';
  const last = metrics.length ? metrics[metrics.length - 1][0] : '';
  const perception = columnOf(data.perception) ? data.perception : last;
  fill($('distortion'), metrics, columnOf(data.distortion) ? data.distortion : first);
  fill($('perception'), metrics, perception);
  fill($('latency'), metrics, perception);
  fill($('ranking-metric'), metrics, perception);
}

function drawSet() {
  drawHead();
  drawTable();
  drawPlots();
  const images = current().images;
  for (const part of document.querySelectorAll('.pictorial')) part.hidden = !images.length;
  if (!images.length) return;
  const names = images[0].pictures.map(picture => picture.name);
  const rows = current().rows.map(row => row.name).filter(name => names.includes(name));
  const entries = names.map(name => [name, name]);
  fill($('slider-left'), entries, names[0]);
  fill($('slider-right'), entries, rows.length ? rows[rows.length - 1] : data.truth);
  fill($('ranking-row'), rows.map(name => [name, name]), rows[rows.length - 1]);
  [state.left, state.right] = [$('slider-left').value, $('slider-right').value];
  for (const id of ['slider-image', 'crops-image']) fill($(id), images.map((shown, number) => [number, shown.name]), 0);
  $('ranking-note').textContent = images.length < current().count
    ? `${images.length} of ${current().count} images are in this page; ranks count all.` : '';
  chooseImage(Math.min(state.image, images.length - 1));
  drawRanking();
}

function listenToSlider() {
  const [stage, handle] = [$('stage'), $('handle')];
  const follow = event => {
    const at = stage.getBoundingClientRect();
    moveSplit(100 * (event.clientX - at.left) / at.width);
  };
  stage.addEventListener('pointerdown', event => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
    event.preventDefault();  // no selection of text around it
    handle.focus({preventScroll: true});
  });
  stage.addEventListener('pointermove', event => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
  const steps = {ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100};
  handle.addEventListener('keydown', event => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    moveSplit(state.split + steps[event.key]);
  });
}

function listenToCrops() {
  $('crops-zoom').addEventListener('change', () => aimCrops(...state.focus));
  $('crop-grid').addEventListener('click', event => {
    const view = event.target.closest('.window')?.firstChild;
    if (!view) return;
    const at = view.getBoundingClientRect();
    aimCrops((event.clientX - at.left) / at.width, (event.clientY - at.top) / at.height);
  });
  const directions = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  $('crop-grid').addEventListener('keydown', event => {
    const direction = directions[event.key];
    if (!direction) return;
    event.preventDefault();
    const step = 0.25 / Number($('crops-zoom').value);
    aimCrops(state.focus[0] + step * direction[0], state.focus[1] + step * direction[1]);
  });
}

function listen() {
  $('set').addEventListener('change', event => {
    Object.assign(state, {set: Number(event.target.value), image: 0, focus: null});
    drawSet();
  });
  for (const id of ['distortion', 'perception', 'latency']) $(id).addEventListener('change', drawPlots);
  for (const id of ['slider-image', 'crops-image']) $(id).addEventListener('change', event => chooseImage(Number(event.target.value)));
  for (const side of ['left', 'right']) {
    $(`slider-${side}`).addEventListener('change', event => {
      state[side] = event.target.value;
      drawSlider();
    });
  }
  $('slider-swap').addEventListener('click', () => {
    [state.left, state.right] = [state.right, state.left];
    [$('slider-left').value, $('slider-right').value] = [state.left, state.right];
    drawSlider();
  });
  for (const id of ['ranking-row', 'ranking-metric', 'ranking-order']) $(id).addEventListener('change', drawRanking);
  listenToSlider();
  listenToCrops();
  let width = window.innerWidth;
  window.addEventListener('resize', () => {
    // phones change the height while one scrolls
    if (window.innerWidth !== width) drawPlots();
    width = window.innerWidth;
  });
  markSections();
}

/** Marks the section in view in the bar at the top. */
function markSections() {
  const links = [...document.querySelectorAll('nav a')];
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links) {
        if (link.hash === `#${entry.target.id}`) link.setAttribute('aria-current', 'true');
        else link.removeAttribute('aria-current');
      }
    }
  }, {rootMargin: '-30% 0px -65% 0px'});
  for (const section of document.querySelectorAll('section')) seen.observe(section);
}

fill($('set'), data.sets.map((set, number) => [number, set.name]), 0);
$('set-choice').hidden = data.sets.length < 2;
fillChoices();
drawNotes();
listen();
drawSet();
// the browser went there before the page had its height
$(location.hash.slice(1))?.scrollIntoView();
