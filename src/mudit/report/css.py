"""The page's style sheet, in the colours of the figures."""

from __future__ import annotations

from mudit.report.theme import DARK, LIGHT, Theme


def _variables(theme: Theme) -> str:
    colours = {
        "paper": theme.paper,
        "panel": theme.panel,
        "rule": theme.rule,
        "muted": theme.muted,
        "ink": theme.ink,
        "warning": theme.warning,
        **theme.runs,
        **{f"role-{role}": colour for role, colour in theme.roles.items()},
    }
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_RULES = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    sans-serif; }
main, header, footer { max-width: 1000px; margin: 0 auto; padding: 0 32px; }
header { padding-top: 48px; }
.kicker { margin: 0; color: var(--muted); font-size: 14px; letter-spacing: .02em; }
h1 { font-size: 34px; line-height: 1.2; margin: 6px 0 14px; letter-spacing: -.015em; }
h2 { font-size: 23px; line-height: 1.3; margin: 60px 0 10px; letter-spacing: -.01em; }
h3 { font-size: 16px; margin: 28px 0 6px; }
p, ol, ul { margin: 10px 0; max-width: 74ch; }
li { margin: 5px 0; }
a { color: var(--mup); }
.lead { font-size: 19px; line-height: 1.5; max-width: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(168px, 1fr)); gap: 12px;
  margin: 26px 0 0; padding: 0; }
.tile { background: var(--panel); border: 1px solid var(--rule); border-radius: 10px;
  padding: 13px 16px 14px; }
.tile dt { color: var(--muted); font-size: 13px; }
.tile dd { margin: 0; }
.tile .value { font-size: 25px; font-weight: 650; line-height: 1.35; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums; }
.tile .value.lines { font-size: 14px; letter-spacing: 0; overflow-wrap: anywhere; padding: 3px 0; }
.tile .value.lines > span { display: block; }
.tile .value.lines span span { font-weight: 400; color: var(--muted); }
.tile .value.word { font-size: 16.5px; line-height: 2.05; letter-spacing: 0; }
.tile .beside { color: var(--muted); font-size: 13px; line-height: 1.4; }
.reasons { margin: 22px 0 0; }
nav { margin: 26px 0 0; padding: 10px 0; border-top: 1px solid var(--rule);
  border-bottom: 1px solid var(--rule); font-size: 14px; display: flex; flex-wrap: wrap;
  gap: 4px 20px; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
figure { margin: 20px 0 0; }
figure img { display: block; width: 100%; max-width: 936px; height: auto; }
figcaption, .small { color: var(--muted); font-size: 14px; line-height: 1.5; max-width: 88ch; }
figcaption { margin-top: 8px; }
.prompts { list-style: none; padding: 0; max-width: none; display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(218px, 1fr)); }
.prompts li { margin: 0; padding: 9px; background: var(--panel); border-radius: 8px;
  border: 1px solid var(--rule); display: flex; flex-direction: column; gap: 8px; }
.prompts p { margin: 0; font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; flex: 1; }
.shots, .images { display: flex; flex-wrap: wrap; gap: 2px; }
.shots { gap: 8px 4px; font-size: 12.5px; line-height: 1.4; }
.shots img { display: block; image-rendering: pixelated; }
.shot .of { color: var(--muted); }
.callout { border-left: 4px solid var(--rule); background: var(--panel); padding: 10px 16px;
  border-radius: 0 8px 8px 0; margin: 16px 0; max-width: none; }
.callout.warning { border-left-color: var(--warning); }
.callout p { margin: 4px 0; max-width: none; }
.callout .mark { color: var(--warning); font-weight: 650; }
code, pre, .name { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono",
  monospace; }
code, pre { font-size: .88em; }
pre code { font-size: 1em; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 16px; overflow-x: auto; line-height: 1.5; }
.scroll { overflow-x: auto; margin: 16px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums;
  width: 100%; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { font-weight: 600; color: var(--muted); white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 2px; }
table.facts { width: auto; }
table.facts tr:first-child td { border-top: 1px solid var(--rule); }
table.facts td, table.facts th { padding-right: 28px; }
table.facts td:first-child { color: var(--muted); padding-right: 28px; white-space: nowrap; }
table.plan td:first-child { min-width: 200px; }
table.plan { font-size: 13.5px; }
.copies { font-weight: 650; font-size: 12.5px; }
.key { white-space: nowrap; }
.same { color: var(--muted); }
.other { font-weight: 600; }
.name { font-size: 12.5px; overflow-wrap: anywhere; }
.why { display: block; color: var(--muted); font-size: 12.5px; line-height: 1.4; }
.role { white-space: nowrap; }
.role::before { content: ""; display: inline-block; width: .72em; height: .72em;
  margin-right: .45em;
  border-radius: 2px; background: var(--role, var(--muted)); }
.run { white-space: nowrap; font-weight: 650; }
.mup { color: var(--mup); }
.sp { color: var(--sp); }
.verdict { font-weight: 700; white-space: nowrap; }
.verdict.pass { color: var(--role-input); }
.verdict.fail { color: var(--warning); }
.verdict.inconclusive { color: var(--muted); }
tr.best td { background: var(--panel); font-weight: 600; }
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--mup); font-size: 15px; }
footer { padding-top: 40px; padding-bottom: 48px; color: var(--muted); font-size: 13.5px; }
@media (max-width: 640px) { main, header, footer { padding-left: 18px; padding-right: 18px; }
  h1 { font-size: 27px; } .lead { font-size: 17px; } }
@media print { nav { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""

STYLE_SHEET = (
    f":root {{ color-scheme: light dark; {_variables(LIGHT)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}\n"
    + "".join(f".role-{role} {{ --role: var(--role-{role}); }}\n" for role in LIGHT.roles)
    + _RULES
)
