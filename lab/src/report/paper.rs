//! What the paper reports (EGA-V2, Tables 2 and 3), to stand beside what was measured here.

/// A row of the paper's tables, relative to EGA in per cent, and its Psi.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaperRow {
    /// Name of the variant.
    pub variant: &'static str,
    /// RPM, CTR-poi and CTR-img against EGA's, in per cent.
    pub lifts: [f64; 3],
    /// Psi in per cent.
    pub psi: f64,
}

/// The paper's Psi of EGA, in per cent.
pub const EGA_PSI: f64 = 2.7;

const ROWS: [PaperRow; 6] = [
    PaperRow { variant: "MCA", lifts: [-16.5, -8.8, -9.3], psi: 3.6 },
    PaperRow { variant: "GR", lifts: [-10.3, -4.9, -6.3], psi: 8.4 },
    PaperRow { variant: "EGA-mtp", lifts: [-2.1, -3.1, -3.6], psi: 2.7 },
    PaperRow { variant: "EGA-end", lifts: [-5.3, -2.0, -1.9], psi: 3.0 },
    PaperRow { variant: "EGA-bid", lifts: [-3.2, -1.5, -1.2], psi: 4.1 },
    PaperRow { variant: "EGA-gsp", lifts: [-1.8, -0.6, -0.5], psi: 8.2 },
];

/// The paper's row of a variant.
pub fn row(variant: &str) -> Option<&'static PaperRow> {
    ROWS.iter().find(|row| row.variant == variant)
}
