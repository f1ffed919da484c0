//! Which kernel runs for which model on which card, where there are several for one operation.
//!
//! The table is made from measurements, ahead of time: nothing is tuned when an engine starts. Its key is what an engine
//! knows when it is built, never the batch, so that a request gets the same bits whatever runs beside it.

use std::fmt;
use std::str::FromStr;

use super::attention_hopper::HEAD_SIZE;
use super::decode_step;
use super::launch::{Launches, Stream};
use crate::error::DeviceError;
use crate::model::config::ModelConfig;

/// The kernels of an engine on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// Those that were the faster ones when the table of [`choice`](self) was measured.
    #[default]
    Measured,
    /// Those that run on every GPU.
    Portable,
    /// Those made for Hopper, wherever there is one. For comparisons, and on sm_90 alone.
    Hopper,
    /// Those that run on every GPU, but the search in one launch. It gives the bits of `Portable`. For comparisons, and on
    /// sm_90 alone.
    Persistent,
}

/// Which kernel of an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The one for every GPU.
    Portable,
    /// The one made for Hopper.
    Hopper,
}

/// How the search is launched. It decides about time alone: the bits are the same in every form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchForm {
    /// A launch for each operation.
    Graph,
    /// One launch, in which every request has a cluster of so many blocks, or of as many as are resident.
    Cluster(u32),
    /// One launch, in which all blocks have all requests.
    Grid,
}

/// Hidden size up to which a request's cluster keeps up with its weights: above, the grid decodes. Not measured.
const MOST_CLUSTER_D: usize = 256;
/// Blocks of such a cluster: eight fit on every Hopper card. Not measured; the bench `teams` has 16 too.
const CLUSTER_BLOCKS: u32 = 8;

/// The kernel of each operation that has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// `linear` or `linear_hopper`, for the rows of histories.
    pub encoder_products: Code,
    /// `attention` or, for heads of 64, `attention_hopper`.
    pub encoder_attention: Code,
    /// The encoder's blocks as separate kernels, or as products of which each has what follows it as its epilogue:
    /// `linear_rotary_hopper`, `linear_norm_hopper` and `linear_swiglu_hopper`, for every size that an engine takes. Then
    /// `encoder_products` is that of the decoders' keys and values alone.
    pub encoder_fusion: Code,
    /// The same products for the rows of beams and of creatives.
    pub decoder_products: Code,
    /// `beam_attention` or, for heads of 64, `beam_attention_hopper`.
    pub cross_attention: Code,
    /// The form of the search, where a team of blocks fits; [`SearchForm::Graph`] elsewhere.
    pub search: SearchForm,
    /// The head, `expand` and `select_beams`, or `search_step_hopper`: the same bits.
    pub search_step: Code,
    /// How launches follow each other.
    pub launches: Launches,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// What the card's name holds: `H100`.
    pub card: &'static str,
    /// Hidden size of the model.
    pub d: usize,
    /// Longest history of the model that the row is for, in behaviours.
    pub history: usize,
    /// The kernels.
    pub choice: Choice,
    /// The file in benches/reports that speaks for them. Without one they are those for every GPU.
    pub report: Option<&'static str>,
}

const PORTABLE: Choice = Choice {
    encoder_products: Code::Portable,
    encoder_attention: Code::Portable,
    encoder_fusion: Code::Portable,
    decoder_products: Code::Portable,
    cross_attention: Code::Portable,
    search: SearchForm::Graph,
    search_step: Code::Portable,
    launches: Launches::Ordinary,
};
const HOPPER: Choice = Choice {
    encoder_products: Code::Hopper,
    encoder_attention: Code::Hopper,
    encoder_fusion: Code::Hopper,
    decoder_products: Code::Hopper,
    cross_attention: Code::Hopper,
    search: SearchForm::Graph,
    search_step: Code::Hopper,
    launches: Launches::Programmatic,
};

/// By card and d, shorter histories first. What is in no row gets the kernels for every GPU.
pub static TABLE: &[Row] = &[
    Row { card: "H100", d: 256, history: 256, choice: PORTABLE, report: None },
    Row { card: "H100", d: 512, history: 256, choice: PORTABLE, report: None },
    Row { card: "H100", d: 1024, history: 256, choice: PORTABLE, report: None },
];

impl Kernels {
    /// The choice for a model on the device of `stream`.
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] where Hopper's kernels are asked for and do not run.
    pub fn choose(self, stream: &dyn Stream, config: &ModelConfig) -> Result<Choice, DeviceError> {
        let choice = match self {
            Self::Measured => look_up(TABLE, &stream.describe(), config.hidden_size, config.history_len),
            Self::Portable => PORTABLE,
            Self::Hopper => stream.hopper().map(|()| HOPPER)?,
            Self::Persistent => {
                stream.hopper().map(|()| Choice { search: persistent(config), ..PORTABLE })?
            }
        };
        if config.hidden_size == config.num_heads * HEAD_SIZE {
            return Ok(choice);
        }
        Ok(Choice { encoder_attention: Code::Portable, cross_attention: Code::Portable, ..choice })
    }
}

/// The form in which one launch searches with such a model.
fn persistent(config: &ModelConfig) -> SearchForm {
    let (d, heads) = (config.hidden_size, config.num_heads);
    if !decode_step::fits(config.decoder_layers, d, d / heads) {
        SearchForm::Graph
    } else if d <= MOST_CLUSTER_D {
        SearchForm::Cluster(CLUSTER_BLOCKS)
    } else {
        SearchForm::Grid
    }
}

fn look_up(table: &[Row], card: &str, d: usize, history: usize) -> Choice {
    let fits = |row: &&Row| card.contains(row.card) && d == row.d && history <= row.history;
    table.iter().find(fits).map_or(PORTABLE, |row| row.choice)
}

impl Choice {
    /// What it adds to [`Stream::kind`], on which the bits of results depend: the operations that Hopper's kernels do.
    pub fn kind(&self) -> String {
        let Self {
            encoder_products,
            encoder_attention,
            encoder_fusion,
            decoder_products,
            cross_attention,
            // These change no bits.
            search: _,
            search_step: _,
            launches: _,
        } = *self;
        let operations = [
            ("encoder_products", encoder_products),
            ("encoder_attention", encoder_attention),
            ("encoder_fusion", encoder_fusion),
            ("decoder_products", decoder_products),
            ("cross_attention", cross_attention),
        ];
        let hopper = operations.into_iter().filter(|(_, code)| *code == Code::Hopper);
        let names: Vec<&str> = hopper.map(|(name, _)| name).collect();
        if names.is_empty() { String::new() } else { format!(", hopper {}", names.join(" ")) }
    }
}

impl FromStr for Kernels {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "measured" => Ok(Self::Measured),
            "portable" => Ok(Self::Portable),
            "hopper" => Ok(Self::Hopper),
            "persistent" => Ok(Self::Persistent),
            _ => Err(format!(
                "kernels {name:?} are unknown, expected `measured`, `portable`, `hopper` or `persistent`"
            )),
        }
    }
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Portable => "portable",
            Self::Hopper => "hopper",
            Self::Persistent => "persistent",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_row_serves_its_card_and_size_up_to_its_history() {
        let row = |card, history, choice| Row { card, d: 512, history, choice, report: None };
        let mixed = Choice { encoder_products: Code::Hopper, ..PORTABLE };
        let table = [row("H100", 64, mixed), row("H100", 256, HOPPER), row("H200", 256, mixed)];
        let choose = |card, d, history| look_up(&table, card, d, history);
        let card = "cuda:0, NVIDIA H100 80GB HBM3 (sm_90), driver of CUDA 13.0";
        assert_eq!(choose(card, 512, 64), mixed);
        assert_eq!(choose(card, 512, 65), HOPPER);
        assert_eq!(choose(card, 512, 257), PORTABLE);
        assert_eq!(choose(card, 256, 64), PORTABLE);
        assert_eq!(choose("cuda:0, NVIDIA H200 (sm_90), driver of CUDA 13.0", 512, 200), mixed);
        assert_eq!(choose("cuda:0, NVIDIA A100 (sm_80), driver of CUDA 13.0", 512, 64), PORTABLE);
        let kinds = [PORTABLE, mixed, HOPPER].map(|choice| choice.kind());
        let all =
            ", hopper encoder_products encoder_attention encoder_fusion decoder_products cross_attention";
        assert_eq!(kinds, ["", ", hopper encoder_products", all]);
        let programmatic = Choice { launches: Launches::Programmatic, ..mixed };
        assert_eq!(programmatic.kind(), mixed.kind());
    }

    /// Nothing stands in the table that was not measured, and no row hides another.
    #[test]
    fn the_table_is_measured_and_in_order() {
        for (at, row) in TABLE.iter().enumerate() {
            let report = row.report.map(|name| Path::new("benches/reports").join(name));
            assert!(row.choice == PORTABLE || report.is_some(), "row {at} was not measured");
            assert!(report.is_none_or(|path| path.is_file()), "row {at} names no report");
            let hidden =
                |before: &Row| (before.card, before.d) == (row.card, row.d) && before.history >= row.history;
            assert!(!TABLE[..at].iter().any(hidden), "row {at} is never reached");
        }
    }

    #[test]
    fn kernels_are_read_as_they_are_written() {
        for kernels in [Kernels::Measured, Kernels::Portable, Kernels::Hopper, Kernels::Persistent] {
            assert_eq!(kernels.to_string().parse(), Ok(kernels));
        }
        assert!("fastest".parse::<Kernels>().unwrap_err().contains("\"fastest\""));
    }
}
