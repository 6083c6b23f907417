#include "simulations/cli/report_view.h"

// The page's style and its one script. Neither may hold '<' or '&': the page is also parsed as XML.
namespace fl::report {

const char* const kStyle = R"css(
:root { color-scheme: light dark; --bg: #fff; --card: #f6f7f8; --text: #1b1f23; --muted: #59626b; --rule: #dfe3e7; --grid: #e6e9ec;
  --good: #17714a; --bad: #b3261e; --open: #80600a; --band: #17714a;
  --c0: #1c6cb0; --c1: #c44e0c; --c2: #1a8457; --c3: #8a49a5; --c4: #94700a; --c5: #157f96; --c6: #bd3f78; --c7: #5a626a; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14171a; --card: #1c2024; --text: #e7eaed; --muted: #a3abb3; --rule: #333a41; --grid: #2a3036;
    --good: #6fd3a0; --bad: #ff8a80; --open: #e8c257; --band: #6fd3a0;
    --c0: #6ab0f0; --c1: #ff9a60; --c2: #5fd09b; --c3: #cf9ae6; --c4: #e3bf52; --c5: #62cde3; --c6: #f48fb6; --c7: #b2bac2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 40px 0 12px; padding-top: 14px; border-top: 1px solid var(--rule); font-size: 1.2rem; }
h3 { margin: 0; font-size: .95rem; font-weight: 600; overflow-wrap: anywhere; }
p { margin: .4em 0; max-width: 75ch; overflow-wrap: anywhere; }
.eyebrow, .note, .legend, .source, footer { color: var(--muted); font-size: .85rem; }
.eyebrow { margin: 0 0 4px; }
.lead { font-size: 1.05rem; }
.badge { display: inline-block; margin-right: .5em; padding: 0 .6em; border: 1px solid currentColor; border-radius: 1em; font-size: .85rem; font-weight: 600; }
.met .badge { color: var(--good); } .missed .badge { color: var(--bad); } .open .badge { color: var(--open); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 8px; margin: 18px 0 0; }
.tiles div { padding: 10px 12px; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
.tiles dt { color: var(--muted); font-size: .8rem; } .tiles dd { margin: 0; font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere; }
.run { margin: 12px 0; padding: 10px 14px; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
.run p { margin: .2em 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 28px 24px; align-items: start; }
figure { position: relative; margin: 0; min-width: 0; max-width: 560px; }
figure > svg { display: block; width: 100%; height: auto; overflow: visible; touch-action: pan-y; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 2px 0 0; max-width: none; }
.key { display: inline-flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.swatch { flex: none; width: 30px; height: 10px; } .swatch.box { width: 10px; } .swatch.ramp { width: 90px; margin: 0 6px; }
svg text { fill: var(--muted); font-size: 12.5px; font-family: inherit; }
svg .y { text-anchor: end; dominant-baseline: central; } svg .x { text-anchor: middle; }
.grid { stroke: var(--grid); fill: none; } .axis { stroke: var(--muted); fill: none; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); }
.o0 { --c: var(--c0); fill-opacity: .35; } .o1 { --c: var(--c7); } .o2 { --c: var(--c4); } .o3 { --c: var(--c1); } .o4 { --c: var(--c3); }
.o5 { --c: var(--c5); } .o6 { --c: var(--c6); } .o7 { --c: var(--bad); } .o8 { --c: var(--c2); }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; stroke-linecap: butt; }
.dot { fill: var(--c); } .hit { fill: transparent; } .bar { fill: var(--c); } .ribbon { fill: var(--c); fill-opacity: .18; }
.band { fill: var(--band); fill-opacity: .22; } .rule { stroke: var(--muted); stroke-dasharray: 2 2; fill: none; }
.h1, .h2, .h3, .h4, .h5, .h6, .h7, .h8, .h9 { shape-rendering: crispEdges; }
.heat-frame { fill: none; stroke: var(--rule); }
.h1, .h2, .h3, .h4, .h5, .h6, .h7, .h8, .h9 { fill: var(--c0); }
.h1 { fill-opacity: .12; } .h2 { fill-opacity: .22; } .h3 { fill-opacity: .33; } .h4 { fill-opacity: .44; } .h5 { fill-opacity: .55; }
.h6 { fill-opacity: .66; } .h7 { fill-opacity: .77; } .h8 { fill-opacity: .88; }
.tip { position: absolute; z-index: 1; padding: 4px 8px; background: var(--bg); border: 1px solid var(--muted); border-radius: 4px; font-size: .8rem;
  line-height: 1.35; white-space: pre-line; pointer-events: none; max-width: 60%; overflow-wrap: anywhere; }
.tip[hidden] { display: none; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; } tbody th { position: sticky; left: 0; min-width: 7em; background: var(--bg); color: var(--muted); font-weight: 400; }
.compared td, .compared th[scope=col] { min-width: 9.5em; }
.data th, .data td { text-align: right; white-space: nowrap; overflow-wrap: normal; }
details { margin: 10px 0; } summary { cursor: pointer; font-size: .9rem; }
details .scroll, pre { max-height: 480px; overflow: auto; margin-top: 6px; }
pre { padding: 10px 12px; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; font-size: .8rem; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; }
a, summary { color: inherit; } :focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
footer { margin-top: 40px; }
@media (max-width: 520px) {
  main { padding: 16px 14px 32px; } h1 { font-size: 1.5rem; } svg text { font-size: 16px; } .tiles { grid-template-columns: 1fr 1fr; } }
@media print {
  :root { color-scheme: light; --bg: #fff; --card: #fff; --text: #000; --muted: #444; --rule: #bbb; --grid: #ddd; --good: #17714a; --bad: #b3261e;
    --open: #80600a; --band: #17714a; --c0: #1c6cb0; --c1: #c44e0c; --c2: #1a8457; --c3: #8a49a5; --c4: #94700a; --c5: #157f96;
    --c6: #bd3f78; --c7: #5a626a; }
  figure, .tiles, .run, tr { break-inside: avoid; } details:not([open]) { display: none; } .charts { grid-template-columns: 1fr 1fr; }
  svg text { font-size: 15px; } }
)css";

// The numbers are those of the plot in report_chart.h: kWidth, kLeft, kRight, kTop, kBottom.
const char* const kScript = R"js(
'use strict';
document.querySelectorAll('svg.curves').forEach(svg => {
  const lines = Array.from(svg.querySelectorAll('path[data-x]'), path => ({
    name: path.dataset.name, x: path.dataset.x.split(' ').map(Number), y: path.dataset.y.split('|'),
    text: (path.dataset.xText || path.dataset.x.split(' ').join('|')).split('|') }));
  if (lines.length === 0) return;
  const low = Number(svg.dataset.xLow), high = Number(svg.dataset.xHigh);
  const rule = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  rule.setAttribute('class', 'rule');
  svg.append(rule);
  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  svg.parentNode.append(tip);
  const nearest = (xs, x) => xs.reduce((best, value, i) => Math.abs(xs[best] - x) > Math.abs(value - x) ? i : best, 0);
  const hide = () => { tip.hidden = true; rule.removeAttribute('d'); };
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect(), outer = svg.parentNode.getBoundingClientRect();
    const pointed = low + ((event.clientX - box.left) / box.width * 480 - 64) / 392 * (high - low);
    const found = lines.map(line => ({ line: line, i: nearest(line.x, pointed) }));
    const first = found.reduce((best, one) =>
      Math.abs(best.line.x[best.i] - pointed) > Math.abs(one.line.x[one.i] - pointed) ? one : best);
    const x = first.line.x[first.i], place = 64 + (x - low) / (high - low) * 392;
    rule.setAttribute('d', 'M' + place + ' 12V232');
    tip.textContent = svg.dataset.xName + ' ' + first.line.text[first.i] + lines.map(line => {
      const i = nearest(line.x, x);
      return '\n' + (lines.length > 1 ? line.name + ': ' : '') + line.y[i] + (line.x[i] === x ? '' : ' (at ' + line.text[i] + ')');
    }).join('');
    tip.hidden = false;
    const left = place / 480 * box.width, right_half = place > 260;
    tip.style.top = (box.top - outer.top + 8) + 'px';
    tip.style.left = right_half ? 'auto' : (left + 8) + 'px';
    tip.style.right = right_half ? (box.width - left + 8) + 'px' : 'auto';
  });
  svg.addEventListener('pointerleave', hide);
});
)js";

}  // namespace fl::report
