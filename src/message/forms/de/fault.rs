//! What serde found wrong with a form.

use std::fmt;

use serde::de::{Expected, Unexpected};

use crate::message::forms::error::Problem;

/// What serde found wrong.
pub(super) type Fault = Box<Finding>;

#[derive(Debug)]
pub(in crate::message::forms) struct Finding {
    /// The field; empty where serde does not say.
    pub(super) field: String,
    /// The first entry of the field that was being read.
    pub(super) entry: Option<usize>,
    pub(super) problem: Problem,
    /// For the log. It holds no value.
    pub(super) detail: String,
    /// The type expects what is no text.
    pub(super) mistyped: bool,
    /// The text that was found in its place.
    pub(super) text: Option<String>,
}

pub(super) fn fault(problem: Problem) -> Fault {
    detailed(problem, String::new())
}

pub(super) fn detailed(problem: Problem, detail: impl Into<String>) -> Fault {
    let (field, detail) = (String::new(), detail.into());
    Box::new(Finding { field, entry: None, problem, detail, mistyped: false, text: None })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Finding {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        fault(Problem::Invalid(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        let problem = Problem::Invalid(INVALID.to_owned());
        let mut fault = detailed(problem, format!("its type expects {expected}"));
        fault.mistyped = true;
        if let Unexpected::Str(text) = unexpected {
            fault.text = Some(text.to_owned());
        }
        fault
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        detailed(Problem::Invalid(INVALID.to_owned()), format!("expected {expected}"))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Fault {
        let problem = Problem::Invalid("has too many or too few values".to_owned());
        detailed(problem, format!("{length} of them, expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Fault {
        detailed(Problem::Choice, format!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Fault {
        let mut fault = fault(Problem::Invalid("is no field of this form".to_owned()));
        fault.field = field.to_owned();
        fault
    }

    fn missing_field(field: &'static str) -> Fault {
        let detail = "not sent, as a box that is not ticked and a list of which nothing is chosen are not; \
                      #[serde(default)] makes those false and empty";
        let mut fault = detailed(Problem::Missing, detail);
        fault.field = field.to_owned();
        fault
    }
}

pub(super) const INVALID: &str = "is not valid";
