//! A table as text of cells: Markdown for readers of text, HTML for those who look at the page.

use maud::{Markup, html};

pub struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Whether all columns but the first are figures.
    has_figures: bool,
}

impl Table {
    pub fn new(titles: impl IntoIterator<Item = String>) -> Self {
        Self { titles: titles.into_iter().collect(), rows: Vec::new(), has_figures: true }
    }

    /// Of words alone.
    pub fn of_words(titles: impl IntoIterator<Item = String>) -> Self {
        Self { has_figures: false, ..Self::new(titles) }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn markdown(&self) -> String {
        let rule =
            (0..self.titles.len()).map(|column| if column > 0 && self.has_figures { "---:" } else { "---" }.to_owned());
        let rule: Vec<String> = rule.collect();
        [&self.titles, &rule].into_iter().chain(&self.rows).map(|cells| line(cells)).collect()
    }

    pub fn html(&self) -> Markup {
        html! {
            div.wide { table.words[!self.has_figures] {
                thead { tr { @for title in &self.titles { th { (plain(title)) } } } }
                tbody { @for cells in &self.rows { tr { @for cell in cells { td { (plain(cell)) } } } } }
            } }
        }
    }
}

/// A bar would end the cell.
fn line(cells: &[String]) -> String {
    let cells = cells.iter().map(|cell| cell.replace('|', r"\|").replace('\n', " "));
    cells.fold("|".to_owned(), |text, cell| text + " " + &cell + " |") + "\n"
}

/// Without Markdown's signs.
fn plain(text: &str) -> String {
    text.replace("**", "").replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_a_cell_in_both() {
        let mut table = Table::new(["row", "**Dice**"].map(str::to_owned));
        table.row(["a|b <c>", "0.5"].map(str::to_owned));
        assert_eq!(table.markdown(), "| row | **Dice** |\n| --- | ---: |\n| a\\|b <c> | 0.5 |\n");
        let html = table.html().into_string();
        assert!(html.contains("<th>Dice</th>") && html.contains("<td>a|b &lt;c&gt;</td>"), "{html}");
    }
}
