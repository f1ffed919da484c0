//! Files of requests, one JSON object a line.

use std::path::Path;

use anyhow::Result;
use bidslate::engine::Limits;
use bidslate::error::RequestError;
use bidslate::model::config::ModelConfig;
use bidslate::request::{Candidates, Request};
use bidslate::response::Response;
use serde_json::{Value, json};

use crate::lines;

/// Most beams a request file may ask for, unless the model's own are more; beyond it a request is refused.
const MOST_BEAMS: usize = 4096;

/// One line of the file: its number from 1, its id, and the request or why it is none.
pub struct Line {
    pub number: usize,
    pub id: Value,
    pub request: Result<Request, RequestError>,
}

/// The requests of a file.
pub fn requests(path: &Path) -> Result<impl Iterator<Item = Result<Line>> + use<>> {
    Ok(lines::lines(path)?.map(|line| line.map(|(number, line)| parse(number, &line))))
}

/// Lines of a file, `size` at a time.
pub fn batches(
    mut lines: impl Iterator<Item = Result<Line>>,
    size: usize,
) -> impl Iterator<Item = Result<Vec<Line>>> {
    std::iter::from_fn(move || {
        let batch: Result<Vec<Line>> = lines.by_ref().take(size).collect();
        let ended = batch.as_ref().is_ok_and(Vec::is_empty);
        (!ended).then_some(batch)
    })
}

/// What became of a request: its answer, or why there is none.
pub type Answer = std::result::Result<Response, RequestError>;

/// A line, and what became of it.
pub struct Answered {
    pub number: usize,
    pub id: Value,
    pub answer: Answer,
}

/// The answers to a batch of lines, in their order; `allocate` answers the requests among them.
pub fn answers(
    batch: Vec<Line>,
    allocate: impl FnOnce(&[Request]) -> Result<Vec<Answer>>,
) -> Result<Vec<Answered>> {
    let asked: Vec<Request> = batch.iter().filter_map(|line| line.request.clone().ok()).collect();
    let mut responses = allocate(&asked)?.into_iter();
    let answer = |line: Line| {
        let answer = line.request.and_then(|_| responses.next().unwrap_or_else(|| unreachable!()));
        Answered { number: line.number, id: line.id, answer }
    };
    Ok(batch.into_iter().map(answer).collect())
}

fn parse(number: usize, line: &[u8]) -> Line {
    match Request::from_json(line) {
        Ok(request) => Line { number, id: json!(request.id), request: Ok(request) },
        Err(error) => Line { number, id: lines::id(line), request: Err(error) },
    }
}

/// What a request file holds.
pub struct Survey {
    /// Lines that are not blank.
    pub lines: u64,
    /// Room for every request that keeps to the model's own limits, and to [`MOST_BEAMS`] or the model's beams.
    pub limits: Limits,
}

/// Reads the first `limit` lines of a request file once ahead of the answers.
///
/// # Errors
/// Where the file cannot be read, or not a second time.
pub fn survey(path: &Path, limit: usize, config: &ModelConfig) -> Result<Survey> {
    lines::check_rereadable(path)?;
    let mut limits = Limits { batch: 1, history: 0, beams: 1, candidates: 0, slots: 1 };
    let most_beams = MOST_BEAMS.max(config.beam_width);
    let mut count = 0;
    for line in requests(path)?.take(limit) {
        count += 1;
        let Ok(request) = line?.request else { continue };
        let beams = request.beam_width.unwrap_or(config.beam_width);
        let slots = request.list_len.unwrap_or(config.list_len);
        let named = match &request.candidates {
            Candidates::All => 0,
            Candidates::Items(items) => items.len(),
        };
        limits.history = limits.history.max(request.history.len().min(config.history_len));
        limits.beams = if beams <= most_beams { limits.beams.max(beams) } else { limits.beams };
        limits.candidates = limits.candidates.max(named).max(request.organic.len());
        limits.slots = if slots <= config.list_len { limits.slots.max(slots) } else { limits.slots };
    }
    Ok(Survey { lines: count, limits })
}

#[cfg(test)]
mod tests {
    use bidslate::model::config::ModelSize;

    use super::*;

    #[test]
    fn there_is_room_for_the_beams_of_the_model_however_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.jsonl");
        let request = |beams: &str| format!("{{\"id\": 1, \"history\": [], \"candidates\": []{beams}}}\n");
        let beams_for = |beam_width: usize| {
            let config = ModelConfig { beam_width, ..ModelConfig::of_size(ModelSize::Tiny) };
            survey(&path, usize::MAX, &config).unwrap().limits.beams
        };
        std::fs::write(&path, request("")).unwrap();
        assert_eq!((beams_for(3), beams_for(MOST_BEAMS + 1)), (3, MOST_BEAMS + 1));
        std::fs::write(&path, request("") + &request(", \"beam_width\": 4097")).unwrap();
        assert_eq!((beams_for(3), beams_for(5000)), (3, 5000));
    }
}
