//! The index of dynamic rules: a tree of their steps.
//!
//! A search visits a node once at most, since the way to it says where in the path it starts. It looks
//! texts up by hash, and so it does with patterns that start or end with a text; only patterns that do neither
//! are tried one by one, and rules share those that are the same.

use smallvec::SmallVec;

use super::hash::RuleMap;
use super::path::{split, split_before};
use super::rule::Step;
use super::segment::SegmentPattern;

/// Numbers of rules: few, however many there are.
pub(super) type Numbers = SmallVec<[usize; 4]>;

/// What may follow a number of steps.
#[derive(Default)]
pub(super) struct Node {
    /// Rules that end here.
    ends: Vec<usize>,
    texts: RuleMap<Node>,
    patterns: Patterns,
    /// Patterns that span segments, by the number of segments after them.
    spans: Vec<(usize, Patterns)>,
}

#[derive(Default)]
struct Patterns {
    starting: Keyed,
    ending: Keyed,
    others: Vec<(SegmentPattern, Node)>,
}

/// Patterns by the text that what they take starts or ends with.
#[derive(Default)]
struct Keyed {
    patterns: RuleMap<Vec<(SegmentPattern, Node)>>,
    /// How long these texts are, each length once.
    lengths: Vec<usize>,
}

impl Node {
    /// Adds the rule with this number.
    pub(super) fn insert(&mut self, steps: &[Step], number: usize) {
        let Some((step, below)) = steps.split_first() else { return self.ends.push(number) };
        let node = match step {
            Step::Text(text) => self.texts.entry(text.clone()).or_default(),
            Step::Segment(pattern) => self.patterns.below(pattern),
            Step::Span { pattern, after } => self.spans(*after).below(pattern),
        };
        node.insert(below, number);
    }

    fn spans(&mut self, after: usize) -> &mut Patterns {
        let known = self.spans.iter().position(|(known, _)| *known == after);
        let place = known.unwrap_or_else(|| {
            self.spans.push((after, Patterns::default()));
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
        self.patterns.search(segment, below, found);
        for (after, patterns) in &self.spans {
            if let Some((span, below)) = split_before(rest, *after) {
                patterns.search(span, below, found);
            }
        }
    }
}

impl Patterns {
    fn below(&mut self, pattern: &SegmentPattern) -> &mut Node {
        let patterns = match (pattern.first_text(), pattern.last_text()) {
            (Some(text), _) => self.starting.with(text),
            (None, Some(text)) => self.ending.with(text),
            (None, None) => &mut self.others,
        };
        let known = patterns.iter().position(|(known, _)| known == pattern);
        let place = known.unwrap_or_else(|| {
            patterns.push((pattern.clone(), Node::default()));
            patterns.len() - 1
        });
        &mut patterns[place].1
    }

    fn search(&self, text: &str, below: Option<&str>, found: &mut Numbers) {
        let mut search = |patterns: &[(SegmentPattern, Node)]| {
            for (pattern, node) in patterns {
                if pattern.accepts(text) {
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
    fn with(&mut self, text: &str) -> &mut Vec<(SegmentPattern, Node)> {
        if !self.lengths.contains(&text.len()) {
            self.lengths.push(text.len());
        }
        self.patterns.entry(text.to_owned()).or_default()
    }

    fn get(&self, text: Option<&str>) -> &[(SegmentPattern, Node)] {
        text.and_then(|text| self.patterns.get(text)).map_or(&[], Vec::as_slice)
    }
}
