//! Keeping part of the check-ins.

use std::collections::{BTreeMap, HashSet};

use anyhow::ensure;

use super::checkins::{CheckIns, Visit};
use crate::draw;

/// The root of the places people live in: visited, but neither advertised nor shown to anyone.
pub const RESIDENCE: &str = "Residence";

/// Keeps the `n` places with the most visitors (ties: more visits, then the earlier first visit) that are no
/// residences, and the visits to them.
///
/// Visitors rather than visits: a place that one person goes to daily says who that person is.
pub fn keep_places(data: &mut CheckIns, n: usize) {
    let mut visitors = vec![HashSet::new(); data.places.len()];
    let mut visits = vec![0_usize; data.places.len()];
    for (user, history) in data.users.iter().enumerate() {
        for visit in history {
            visitors[visit.place].insert(user);
            visits[visit.place] += 1;
        }
    }
    let mut ranked: Vec<usize> =
        (0..data.places.len()).filter(|&place| data.places[place].root != RESIDENCE).collect();
    ranked.sort_by_key(|&place| std::cmp::Reverse((visitors[place].len(), visits[place])));
    ranked.truncate(n);
    ranked.sort_unstable();
    let renumbered: BTreeMap<usize, usize> =
        ranked.iter().enumerate().map(|(new, &old)| (old, new)).collect();
    data.places = ranked.iter().map(|&place| data.places[place].clone()).collect();
    for history in &mut data.users {
        let keep = |visit: &Visit| renumbered.get(&visit.place).map(|&place| Visit { place, ..*visit });
        *history = history.iter().filter_map(keep).collect();
    }
}

/// Puts the users in the seed's order, so that their numbers carry nothing, and keeps the first `n`, or all,
/// of those with a history to speak of: two visits, one to learn from and one to hold out.
///
/// # Errors
/// Where there are fewer such users.
pub fn keep_users(data: &mut CheckIns, n: Option<usize>, seed: u64) -> anyhow::Result<()> {
    let order = draw::shuffled(seed, "user order", data.users.len());
    let mut users: Vec<Vec<Visit>> = order.into_iter().map(|u| std::mem::take(&mut data.users[u])).collect();
    users.retain(|history| history.len() >= 2);
    ensure!(!users.is_empty(), "no user has two visits, expected one to learn from and one to hold out");
    if let Some(n) = n {
        ensure!(n <= users.len(), "--users is {n}, expected at most the {} with two visits", users.len());
        users.truncate(n);
    }
    data.users = users;
    Ok(())
}
