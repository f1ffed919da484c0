//! Tasks that several workers take in order, and their answers in that order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A queue of tasks, with a place for each answer.
pub(super) struct Queue<'t, T, A> {
    tasks: &'t [T],
    next: AtomicUsize,
    answers: Vec<Mutex<Option<A>>>,
}

impl<'t, T, A> Queue<'t, T, A> {
    /// A queue of `tasks`, none of them taken.
    pub fn new(tasks: &'t [T]) -> Self {
        let answers = tasks.iter().map(|_| Mutex::new(None)).collect();
        Self { tasks, next: AtomicUsize::new(0), answers }
    }

    /// Takes tasks that nobody has taken and answers them, until there are none.
    pub fn work(&self, mut answer: impl FnMut(&'t T) -> A) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            let (Some(task), Some(place)) = (self.tasks.get(i), self.answers.get(i)) else { return };
            let answered = answer(task);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
        }
    }

    /// The answers; all of them once every worker has returned.
    pub fn into_answers(self) -> impl Iterator<Item = A> {
        self.answers
            .into_iter()
            .filter_map(|answer| answer.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
