//! Launches of `kernels/select.cu`: the best ways on become the next beams.

crate::kernels! {
    in "select";

    /// Keeps the best of all ways on and follows them.
    fn select_beams(
        nodes: Ptr<u32>,
        ads: Ptr<u32>,
        ad_bids: Ptr<u64>,
        ad_ids: Ptr<u64>,
        rules: Ptr<u32>,
        seeds: Ptr<u64>,
        organic: Ptr<u32>,
        organic_ids: Ptr<u64>,
        logits: Ptr<f32>,
        ln_z: Ptr<f64>,
        best: Ptr<u64>,
        progress: PtrMut<u32>,
        beams: PtrMut<u32>,
        sums: PtrMut<f64>,
        rows: PtrMut<u32>,
        chosen: PtrMut<u32>,
        chosen_ln_z: PtrMut<f64>,
        tokens: PtrMut<u32>,
        position: PtrMut<u32>,
        n: u32,
        layers: u32,
        codes: u32,
        positions: u32,
        first_code_token: u32,
        boi: u32,
    );
}
