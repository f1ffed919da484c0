//! Launches of `kernels/expand.cu`: what may follow each beam, and ln z of each.

crate::kernels! {
    in "expand";

    /// One step of every beam, up to the choice between them.
    fn expand(
        nodes: Ptr<u32>,
        bids: Ptr<u64>,
        ads: Ptr<u32>,
        ad_bids: Ptr<u64>,
        rules: Ptr<u32>,
        terms: Ptr<f64>,
        organic: Ptr<u32>,
        ln_w: Ptr<f64>,
        rows: Ptr<u32>,
        chosen: Ptr<u32>,
        sums: Ptr<f64>,
        logits: Ptr<f32>,
        progress: PtrMut<u32>,
        beams: PtrMut<u32>,
        ln_z: PtrMut<f64>,
        best: PtrMut<u64>,
        layers: u32,
        codes: u32,
        positions: u32,
    );
}
