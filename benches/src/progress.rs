//! The progress bar, on a terminal only.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar of `length` steps on standard error, unseen unless that is a terminal.
    #[must_use]
    pub fn new(length: usize) -> Self {
        if !stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::new(length as u64);
        let template = "{bar:40} {human_pos} of {human_len} ({per_sec}, {eta} left)";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Makes a bar that is never shown.
    #[must_use]
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Shows that `done` steps are done.
    pub fn show(&self, done: usize) {
        self.0.set_position(done as u64);
    }

    /// Shows that `more` steps are done, on top of those before.
    pub fn advance(&self, more: usize) {
        self.0.inc(more as u64);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
