//! What all pages share: frame, live part, tables, states, links.

use std::fmt::Write as _;

use arcuate_record::State;
use arcuate_record::html::escape;

use crate::query::link;

/// Milliseconds between two looks while something is being trained, and while nothing is.
const BUSY_PAUSE: u32 = 2000;
const IDLE_PAUSE: u32 = 10_000;
/// Seconds after which a page without scripts loads itself again.
const RELOAD_SECONDS: u32 = 5;

/// A page: what stays as it is, then the live part, then again what stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    title: String,
    /// Where the live part is asked for; empty: there is none.
    address: String,
    is_live: bool,
    before: String,
    live: String,
    after: String,
}

impl Page {
    /// A page of that title; `address` is its own, with a query.
    pub(super) fn new(title: &str, address: &str) -> Self {
        Self { title: title.to_owned(), address: address.to_owned(), ..Self::default() }
    }

    /// HTML before the live part.
    pub(super) fn before(mut self, html: &str) -> Self {
        self.before.push_str(html);
        self
    }

    /// HTML that is asked for again: often if something is being trained.
    pub(super) fn live(mut self, is_live: bool, html: &str) -> Self {
        self.is_live = is_live;
        self.live.push_str(html);
        self
    }

    /// HTML behind the live part.
    pub(super) fn after(mut self, html: &str) -> Self {
        self.after.push_str(html);
        self
    }

    /// The live part alone.
    pub(super) fn fragment(&self) -> String {
        let pause = if self.is_live { BUSY_PAUSE } else { IDLE_PAUSE };
        format!("<div class=\"parts\" data-every=\"{pause}\">{}</div>", self.live)
    }

    /// The whole page.
    pub(super) fn to_html(&self) -> String {
        let title = escape(&self.title);
        let reload = if self.is_live {
            format!("<noscript><meta http-equiv=\"refresh\" content=\"{RELOAD_SECONDS}\"></noscript>\n")
        } else {
            String::new()
        };
        let live = if self.address.is_empty() {
            String::new()
        } else {
            let separator = if self.address.contains('?') { '&' } else { '?' };
            let address = escape(&format!("{}{separator}part=live", self.address));
            format!(
                "<div id=\"live\" data-address=\"{address}\">{}</div>\n\
                 <p id=\"lost\" class=\"lost\" role=\"status\" aria-live=\"polite\"></p>\n",
                self.fragment()
            )
        };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} - arcuate</title>\n\
             <link rel=\"icon\" href=\"/icon.svg\">\n<link rel=\"stylesheet\" href=\"/style.css\">\n\
             <script src=\"/live.js\" defer></script>\n{reload}</head>\n<body class=\"own\">\n\
             <a class=\"skip\" href=\"#main\">Skip to content</a>\n\
             <nav class=\"bar\" aria-label=\"Main\"><a class=\"home\" href=\"/\">arcuate</a><a href=\"/\">Runs and studies</a></nav>\n\
             <main id=\"main\" tabindex=\"-1\">\n<h1>{title}</h1>\n{}{live}{}</main>\n</body>\n</html>\n",
            self.before, self.after
        )
    }
}

/// A cell of a table: HTML and its class.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    html: String,
    class: &'static str,
}

impl Cell {
    /// Text.
    pub(super) fn text(text: &str) -> Self {
        Self { html: escape(text), class: "" }
    }

    /// A number, set to the right.
    pub(super) fn number(text: &str) -> Self {
        Self { html: escape(text), class: "number" }
    }

    /// The name of a metric or key, which may go on in the next line after a part of it.
    pub(super) fn metric(name: &str) -> Self {
        let text = escape(name).replace('/', "/<wbr>").replace('_', "_<wbr>").replace('.', ".<wbr>");
        Self { html: text, class: "metric" }
    }

    /// HTML.
    pub(super) fn html(html: String) -> Self {
        Self { html, class: "" }
    }

    /// Sets the class.
    pub(super) fn class(mut self, class: &'static str) -> Self {
        self.class = class;
        self
    }
}

/// A table with a caption; the cell at `heading` names its row.
pub(super) fn table(caption: &str, headers: &[Cell], heading: usize, rows: &[Vec<Cell>]) -> String {
    let caption = escape(caption);
    let mut html = format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table>\
         <caption>{caption}</caption><thead><tr>"
    );
    let class = |cell: &Cell| if cell.class.is_empty() { String::new() } else { format!(" class=\"{}\"", cell.class) };
    for header in headers {
        let _ = write!(html, "<th scope=\"col\"{}>{}</th>", class(header), header.html);
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let (tag, scope) = if column == heading { ("th", " scope=\"row\"") } else { ("td", "") };
            let _ = write!(html, "<{tag}{scope}{}>{}</{tag}>", class(cell), cell.html);
        }
        html.push_str("</tr>");
    }
    html + "</tbody></table></div>\n"
}

/// A section with its heading.
pub(super) fn section(heading: &str, html: &str) -> String {
    format!("<section><h2>{}</h2>\n{html}</section>\n", escape(heading))
}

/// A state as a word with a colour.
pub(super) fn state(state: State) -> String {
    let name = state.name();
    format!("<span class=\"state {name}\">{name}</span>")
}

/// A link to a page of ours about something with a name.
pub(super) fn named(path: &str, name: &str, text: &str) -> String {
    format!("<a href=\"{}\">{}</a>", escape(&link(path, &[("name", name)])), escape(text))
}

/// Key figures beside each other: name, figure, note.
pub(super) fn tiles(tiles: &[(String, String, String)]) -> String {
    let mut html = String::from("<div class=\"tiles\">");
    for (label, value, note) in tiles {
        let [label, value, note] = [label, value, note].map(|text| escape(text));
        let _ = write!(html, "<div class=\"tile\"><span>{label}</span><b>{value}</b><small>{note}</small></div>");
    }
    html + "</div>\n"
}

/// How far something is, for eyes and for screen readers.
pub(super) fn progress(label: &str, share: f64) -> String {
    let percent = (100.0 * share.clamp(0.0, 1.0)).floor();
    let label = escape(label);
    format!("<progress aria-label=\"{label}\" max=\"100\" value=\"{percent}\">{percent}%</progress>")
}
