//! Where users really went next, beside the lists that they would have been shown.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use bidslate::catalog::ItemKind;
use bidslate::request::{Candidates, Request, RequestId};
use bidslate::response::Response;
use serde::Deserialize;

use crate::table::Labels;

/// The visits that requests hold out, and how many of them the lists showed.
#[derive(Debug, Default)]
pub struct HeldOut {
    visits: HashMap<RequestId, Visit>,
    ads: Tally,
    organic: Tally,
}

/// One line of `heldout.jsonl`.
#[derive(Debug, Deserialize)]
struct Visit {
    id: RequestId,
    item: u64,
}

/// Held-out visits that a list could show.
#[derive(Debug, Default)]
struct Tally {
    could: usize,
    did: usize,
    /// How many would be expected if the items of this kind in each list were drawn from the request's.
    by_chance: f64,
}

/// The visit that a request holds out.
#[derive(Debug)]
pub struct Next {
    item: u64,
    /// Its kind, where the request could show it, and how many items of that kind it could show.
    among: Option<(ItemKind, usize)>,
}

impl HeldOut {
    /// Reads a file of one visit a line.
    ///
    /// # Errors
    /// Names the file and the line.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        let mut visits = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            let visit: Visit =
                serde_json::from_str(line).with_context(|| format!("{}:{number}", path.display()))?;
            visits.insert(visit.id.clone(), visit);
        }
        Ok(Self { visits, ..Self::default() })
    }

    /// The visit that a request holds out, where one is known.
    pub fn of(&self, request: &Request) -> Option<Next> {
        let item = self.visits.get(&request.id)?.item;
        let ads = match &request.candidates {
            Candidates::Items(ads) => &ads[..],
            Candidates::All => &[],
        };
        let kinds = [(ItemKind::Ad, ads), (ItemKind::Organic, &request.organic[..])];
        let among = kinds.into_iter().find(|(_, items)| items.contains(&item));
        Some(Next { item, among: among.map(|(kind, items)| (kind, items.len())) })
    }

    /// Counts an answer; says whether the list shows the visit.
    pub fn count(&mut self, next: &Next, response: &Response, labels: Option<&Labels>) -> String {
        let slot = response.slots.iter().position(|slot| slot.item == next.item);
        if let Some((kind, items)) = next.among {
            let same_kind = response.slots.iter().filter(|slot| slot.kind == kind).count();
            let tally = if kind == ItemKind::Ad { &mut self.ads } else { &mut self.organic };
            tally.could += 1;
            tally.did += usize::from(slot.is_some());
            tally.by_chance += same_kind as f64 / items as f64;
        }
        let where_to = match (slot, next.among) {
            (Some(slot), _) => format!("slot {slot}"),
            (None, Some(_)) => "not in the list".to_owned(),
            (None, None) => "not among what could be shown".to_owned(),
        };
        let name = labels.map_or_else(|| next.item.to_string(), |labels| labels.name(next.item));
        format!("went next to {name}: {where_to}")
    }

    /// The hit rates.
    pub fn summary(&self) -> String {
        let of = |kind: &str, Tally { could, did, by_chance }: &Tally| {
            format!("{did} of {could} {kind} (by chance {by_chance:.1})")
        };
        let (ads, organic) = (of("ads", &self.ads), of("organic", &self.organic));
        format!("next visits in the lists, of those that could be: {ads}, {organic}")
    }
}
