//! The index of dynamic rules: a tree of their steps.
//!
//! A search visits a node once at most, since the way to it says where in the path it starts. It looks
//! texts up by hash, and so it does with cells that start or end with a text; only cells that do neither
//! are tried one by one, and rules share those that are the same.

use smallvec::SmallVec;

use super::cell::Cell;
use super::hash::RuleMap;
use super::path::{split, split_before};
use super::rule::Step;

/// Numbers of rules: few, however many there are.
pub(super) type Numbers = SmallVec<[usize; 4]>;

/// What may follow a number of steps.
#[derive(Default)]
pub(super) struct Node {
    /// Rules that end here.
    ends: Vec<usize>,
    texts: RuleMap<Node>,
    cells: Cells,
    /// Cells that span segments, by the number of segments after them.
    spans: Vec<(usize, Cells)>,
}

#[derive(Default)]
struct Cells {
    starting: Keyed,
    ending: Keyed,
    others: Vec<(Cell, Node)>,
}

/// Cells by the text that what they take starts or ends with.
#[derive(Default)]
struct Keyed {
    cells: RuleMap<Vec<(Cell, Node)>>,
    /// How long these texts are, each length once.
    lengths: Vec<usize>,
}

impl Node {
    /// Adds the rule with this number.
    pub(super) fn insert(&mut self, steps: &[Step], number: usize) {
        let Some((step, below)) = steps.split_first() else { return self.ends.push(number) };
        let node = match step {
            Step::Text(text) => self.texts.entry(text.clone()).or_default(),
            Step::Segment(cell) => self.cells.below(cell),
            Step::Span { cell, after } => self.spans(*after).below(cell),
        };
        node.insert(below, number);
    }

    fn spans(&mut self, after: usize) -> &mut Cells {
        let known = self.spans.iter().position(|(known, _)| *known == after);
        let place = known.unwrap_or_else(|| {
            self.spans.push((after, Cells::default()));
            self.spans.len() - 1
        });
        &mut self.spans[place].1
    }

    /// Collects the rules that match what is left of a decoded path, but for what their filters make of the
    /// values. `None` is the end of the path.
    pub(super) fn search(&self, rest: Option<&str>, found: &mut Numbers) {
        let Some(rest) = rest else { return found.extend_from_slice(&self.ends) };
        let (segment, below) = split(rest);
        if let Some(node) = self.texts.get(segment) {
            node.search(below, found);
        }
        self.cells.search(segment, below, found);
        for (after, cells) in &self.spans {
            if let Some((span, below)) = split_before(rest, *after) {
                cells.search(span, below, found);
            }
        }
    }
}

impl Cells {
    fn below(&mut self, cell: &Cell) -> &mut Node {
        let cells = match (cell.first_text(), cell.last_text()) {
            (Some(text), _) => self.starting.with(text),
            (None, Some(text)) => self.ending.with(text),
            (None, None) => &mut self.others,
        };
        let known = cells.iter().position(|(known, _)| known == cell);
        let place = known.unwrap_or_else(|| {
            cells.push((cell.clone(), Node::default()));
            cells.len() - 1
        });
        &mut cells[place].1
    }

    fn search(&self, text: &str, below: Option<&str>, found: &mut Numbers) {
        let mut search = |cells: &[(Cell, Node)]| {
            for (cell, node) in cells {
                if cell.fits(text) {
                    node.search(below, found);
                }
            }
        };
        for length in &self.starting.lengths {
            search(self.starting.get(text.get(..*length)));
        }
        for length in &self.ending.lengths {
            let start = text.len().checked_sub(*length);
            search(self.ending.get(start.and_then(|start| text.get(start..))));
        }
        search(&self.others);
    }
}

impl Keyed {
    fn with(&mut self, text: &str) -> &mut Vec<(Cell, Node)> {
        if !self.lengths.contains(&text.len()) {
            self.lengths.push(text.len());
        }
        self.cells.entry(text.to_owned()).or_default()
    }

    fn get(&self, text: Option<&str>) -> &[(Cell, Node)] {
        text.and_then(|text| self.cells.get(text)).map_or(&[], Vec::as_slice)
    }
}
