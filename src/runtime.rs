//! The async runtime, if it is one that we know: tokio, with the feature of that name.

#[cfg(all(feature = "tokio", not(atomic_cache_loom)))]
mod known {
    use crate::foreign::contain;
    use tokio::runtime::Handle;
    use tokio::sync::oneshot;

    /// Whether the runtime tells tasks apart.
    pub(crate) const KNOWS_TASKS: bool = true;

    /// A task of tokio; `None` outside of all, and directly under `block_on`.
    pub(crate) type Task = Option<tokio::task::Id>;

    pub(crate) const NO_TASK: Task = None;

    /// Returns the task in which this thread is.
    pub(crate) fn task() -> Task {
        tokio::task::try_id()
    }

    /// Returns whether this thread is where tokio forbids to block: inside a task, or under
    /// `block_on`; not inside `spawn_blocking` or `block_in_place`.
    ///
    /// Tokio has one way to tell: its own blocking calls panic there, before they look at anything.
    /// The program's panic hook reports that panic; our caller is about to panic too.
    pub(crate) fn forbids_blocking() -> bool {
        // Without a runtime there is nothing to ask.
        Handle::try_current().is_ok()
            && contain(|| {
                let (sender, receiver) = oneshot::channel();
                // The value is there already, so the call does not block where blocking is allowed.
                let _ = sender.send(());
                let _ = receiver.blocking_recv();
            })
    }
}

#[cfg(not(all(feature = "tokio", not(atomic_cache_loom))))]
mod known {
    pub(crate) const KNOWS_TASKS: bool = false;

    /// No task is known.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Task;

    pub(crate) const NO_TASK: Task = Task;

    pub(crate) fn task() -> Task {
        NO_TASK
    }

    pub(crate) fn forbids_blocking() -> bool {
        false
    }
}

pub(crate) use known::*;
