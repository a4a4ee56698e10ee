//! The pages of `arcuate ui` as a reader uses them in a browser: open, filter, compare, watch a run. The server runs in this
//! process, over run folders made for the purpose.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use arcuate_record::{Confusion, MetricsWriter, Record, RunDir, State};
use arcuate_serve::{Server, Ui};

use crate::browser::Browser;

const STEPS: u64 = 200;
/// A phone that is small today.
const PHONE: (u32, u32) = (360, 740);
const DESKTOP: (u32, u32) = (1200, 900);

/// A run that goes on while a page shows it.
struct Training {
    folder: RunDir,
    metrics: MetricsWriter,
    step: u64,
    seed: u64,
}

impl Training {
    fn start(root: &Path, name: &str, seed: u64) -> Result<Self> {
        let recipe = format!("name = \"{name}\"\nseed = {seed}\n\n[horizon]\nsteps = {STEPS}\n");
        let folder = RunDir::create_or_open(root, name, &recipe)?;
        let metrics = MetricsWriter::open(&folder.metrics_path(), None)?;
        Ok(Self { folder, metrics, step: 0, seed })
    }

    fn go_to(&mut self, step: u64) -> Result<()> {
        while self.step < step {
            self.step += 1;
            let progress = self.step as f64 / STEPS as f64;
            let jitter = ((self.step * 7 + self.seed * 13) % 17) as f64 / 60.0;
            let loss = 2.0 + 4.0 * (-4.0 * progress).exp() + jitter + self.seed as f64 / 10.0;
            let record = Record::new(self.step, "train").value("loss", loss);
            let record = record.value("learning_rate", 1e-3 * (1.0 - progress)).value("grad_norm", 0.5 + jitter);
            self.metrics.write(&record.value("tokens_per_second", 11_000.0 + 500.0 * jitter))?;
            if self.step.is_multiple_of(20) {
                let record = Record::new(self.step, "eval").value("loss", loss).value("accuracy", 0.9 * progress);
                self.metrics.write(&record)?;
            }
        }
        Ok(self.folder.finish(State::Running, step, None)?)
    }

    fn end(mut self) -> Result<()> {
        self.go_to(STEPS)?;
        let path = self.folder.path().to_path_buf();
        fs::write(path.join("samples.jsonl"), "{\"prompt\":\"Fellow citizens\",\"text\":\" of the Senate\"}\n")?;
        let mut confusion = Confusion::new(STEPS, &["whig".to_owned(), "none".to_owned()]);
        (0..20).for_each(|number| confusion.add(number % 2, usize::from(number % 3 == 0)));
        confusion.save(&path)?;
        Ok(self.folder.finish(State::Done, STEPS, None)?)
    }
}

fn make_runs(root: &Path) -> Result<()> {
    for (name, seed) in [("alpha", 1), ("beta", 2)] {
        Training::start(root, name, seed)?.end()?;
    }
    let study = root.join("a-study");
    fs::create_dir_all(&study)?;
    let file = "claim = \"warm starts help\"\nseeds = [1, 2]\n[metric]\nname = \"eval/accuracy\"\n\
         [[arm]]\nname = \"cold\"\nwords = \"random weights\"\n[[arm]]\nname = \"warm\"\nwords = \"trained weights\"\n";
    fs::write(study.join("study.toml"), file)?;
    fs::write(study.join("rule.json"), "{}")?;
    fs::write(study.join("report.html"), "<h1>The report</h1><script>document.title = 'ran'</script>")?;
    for (name, seed) in [("cold-seed1", 1), ("warm-seed1", 2)] {
        Training::start(&study, name, seed)?.end()?;
    }
    Ok(())
}

/// Goes through everything; pictures of the pages go into a folder, if one is given.
pub fn run(program: &Path, pictures: Option<&Path>) -> Result<()> {
    let root = tempfile::Builder::new().prefix("arcuate-ui-").tempdir()?;
    make_runs(root.path())?;
    let server = Server::bind("127.0.0.1", 0)?;
    let home = format!("http://{}", server.address());
    let ui = Ui::new(root.path());
    std::thread::spawn(move || -> () { server.serve(move |request| ui.answer(request)) });
    let mut browser = Browser::start(program)?;
    browser.look(DESKTOP.0, DESKTOP.1, false)?;
    open_and_filter(&mut browser, &home)?;
    compare_by_keyboard(&mut browser, &home)?;
    watch(&mut browser, &home, root.path())?;
    follow_links(&mut browser, &home)?;
    fit_everywhere(&mut browser, &home, pictures)?;
    let complaints = browser.complaints();
    if !complaints.is_empty() {
        bail!("the browser complained:\n  {}", complaints.join("\n  "));
    }
    without_scripts(&mut browser, &home)
}

const ROWS: &str = "document.querySelectorAll('form.runs tbody tr').length";

fn open_and_filter(browser: &mut Browser, home: &str) -> Result<()> {
    browser.open(&format!("{home}/"))?;
    browser.expect("the list has all runs", &format!("{ROWS} === 4"))?;
    browser.expect("the style is loaded", "getComputedStyle(document.querySelector('.bar')).display === 'flex'")?;
    browser.press("Tab")?;
    browser.expect("the first stop skips to the content", "document.activeElement.className === 'skip'")?;
    browser.press("Enter")?;
    browser.wait("document.activeElement.id === 'main'")?;
    browser.value("document.querySelector('[name=q]').focus()")?;
    browser.write("alp")?;
    browser.press("Enter")?;
    browser.wait(&format!("location.search.includes('q=alp') && {ROWS} === 1"))?;
    browser.expect("what was typed is still there", "document.querySelector('[name=q]').value === 'alp'")?;
    browser
        .value("document.querySelector('[name=state]').value = 'failed'; document.querySelector('.filter').submit()")?;
    browser.wait("document.body.innerText.includes('No run fits')")
}

fn compare_by_keyboard(browser: &mut Browser, home: &str) -> Result<()> {
    browser.open(&format!("{home}/"))?;
    for name in ["alpha", "beta"] {
        browser.value(&format!("document.querySelector('[value={name}]').focus()"))?;
        browser.press(" ")?;
        browser.expect("the space bar ticks", &format!("document.querySelector('[value={name}]').checked"))?;
    }
    browser.value("document.querySelector('.act button').focus()")?;
    browser.press("Enter")?;
    browser.wait("location.pathname === '/compare' && document.readyState === 'complete'")?;
    browser
        .expect("both runs are drawn", "document.querySelector('figure').querySelectorAll('polyline').length === 2")?;
    browser.expect(
        "the key that differs is shown",
        "[...document.querySelectorAll('tbody th')].some(cell => cell.textContent === 'seed')",
    )?;
    browser.value("document.querySelector('.links a').click()")?;
    browser.wait("location.pathname === '/' && document.querySelectorAll('input:checked').length === 2")
}

fn watch(browser: &mut Browser, home: &str, root: &Path) -> Result<()> {
    let mut run = Training::start(root, "gamma", 3)?;
    run.go_to(40)?;
    browser.look(DESKTOP.0, 500, false)?;
    browser.open(&format!("{home}/run?name=gamma"))?;
    browser.expect("it runs", "document.querySelector('.state').textContent === 'running'")?;
    // Whatever the reader does must outlive the changes.
    browser.value(
        "window.mark = 1; document.querySelector('details').open = true; document.querySelector('summary').focus()",
    )?;
    browser.value("window.scrollTo(0, 200); document.querySelector('.scroll').dataset.seen = 'yes'; window.points = document.querySelector('polyline').getAttribute('points')")?;
    run.go_to(90)?;
    browser.wait("document.querySelector('.tile b').textContent === '90 of 200'")?;
    browser
        .expect("the curve has grown", "document.querySelector('polyline').getAttribute('points') !== window.points")?;
    browser.expect("the page is the same", "window.mark === 1 && document.querySelector('details').open")?;
    browser.expect("the focus is kept", "document.activeElement.localName === 'summary'")?;
    browser.expect("the place is kept", "Math.abs(window.scrollY - 200) < 60")?;
    run.end()?;
    browser.wait("document.querySelector('.state').textContent === 'done'")?;
    browser.wait(
        "document.body.innerText.includes('Confusion matrix') && document.body.innerText.includes('of the Senate')",
    )?;
    browser.expect("the page was never loaded again", "window.mark === 1")?;
    browser.look(DESKTOP.0, DESKTOP.1, false)?;
    let mut run = Training::start(root, "delta", 4)?;
    browser.open(&format!("{home}/"))?;
    browser
        .value("document.querySelector('[value=alpha]').click(); document.querySelector('[value=alpha]').focus()")?;
    run.go_to(10)?;
    let mut second = Training::start(root, "epsilon", 5)?;
    second.go_to(10)?;
    browser.wait(&format!("{ROWS} === 7 && document.body.innerText.includes('10 of 200')"))?;
    browser.expect("ticks are kept", "document.querySelector('[value=alpha]').checked")?;
    browser.expect("no tick moves", "document.querySelectorAll('input:checked').length === 1")?;
    browser.expect("the focus stays on its run", "document.activeElement.value === 'alpha'")?;
    run.end()?;
    second.end()
}

fn follow_links(browser: &mut Browser, home: &str) -> Result<()> {
    browser.open(&format!("{home}/"))?;
    browser.value("document.querySelector('a[href=\"/study?name=a-study\"]').click()")?;
    browser.wait("document.body.innerText.includes('warm starts help') && document.querySelectorAll('td .state.done').length === 2")?;
    browser.value("[...document.querySelectorAll('.links a')].find(link => link.textContent === 'Report').click()")?;
    browser.wait("location.pathname === '/report' && document.querySelector('h1').textContent === 'The report'")?;
    browser.expect("a report runs no script", "document.title !== 'ran'")?;
    // That it was kept from running is what the browser complains about.
    let complaints = browser.complaints();
    if !complaints.iter().any(|text| text.contains("script")) {
        bail!("the script of the report was not stopped: {complaints:?}");
    }
    Ok(())
}

fn fit_everywhere(browser: &mut Browser, home: &str, pictures: Option<&Path>) -> Result<()> {
    let pages = [
        ("list", "/"),
        ("run", "/run?name=alpha"),
        ("compare", "/compare?run=alpha&run=beta&run=gamma"),
        ("study", "/study?name=a-study"),
    ];
    for (kind, size, is_dark) in [("light", DESKTOP, false), ("dark", DESKTOP, true), ("phone", PHONE, false)] {
        browser.look(size.0, size.1, is_dark)?;
        for (name, path) in pages {
            browser.open(&format!("{home}{path}"))?;
            browser.expect(
                "nothing is wider than the window",
                &format!("document.documentElement.scrollWidth <= {}", size.0),
            )?;
            let ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part < 60)";
            browser.expect("the ground follows the reader", &format!("{ground} === {is_dark}"))?;
            if let Some(folder) = pictures {
                browser.picture(&folder.join(format!("{name}-{kind}.png")))?;
            }
        }
    }
    browser.look(DESKTOP.0, DESKTOP.1, false)
}

/// Without scripts everything but the live changes works; a page of something that runs loads itself again.
fn without_scripts(browser: &mut Browser, home: &str) -> Result<()> {
    browser.scripts(false)?;
    browser.open(&format!("{home}/?q=beta"))?;
    browser.expect("the filter works", &format!("{ROWS} === 1"))?;
    browser.value("document.querySelector('[value=beta]').focus()")?;
    browser.press(" ")?;
    browser.value("document.querySelector('.act button').focus()")?;
    browser.press("Enter")?;
    browser.wait("location.pathname === '/compare'")?;
    browser.scripts(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_work_in_a_browser_where_there_is_one() {
        if let Some(program) = crate::browser::find() {
            run(&program, None).expect("every step works");
        }
    }
}
