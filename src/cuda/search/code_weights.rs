//! Launches of `kernels/code_weights.cu`: weights of codes that a search needs again and again.

crate::kernels! {
    in "code_weights";

    /// Empties the tallies of the requests that weigh by code.
    fn clear_tally(rules: Ptr<u32>, tally: PtrMut<u64>, codes: u32);

    /// Adds the items of these requests to the tallies of their codes.
    fn tally_codes(
        nodes: Ptr<u32>,
        ads: Ptr<u32>,
        ad_bids: Ptr<u64>,
        rules: Ptr<u32>,
        organic: Ptr<u32>,
        tally: PtrMut<u64>,
        layers: u32,
        codes: u32,
    );

    /// ln w of every code of these requests, from the tallies.
    fn weigh_codes(rules: Ptr<u32>, terms: Ptr<f64>, tally: Ptr<u64>, ln_w: PtrMut<f64>, codes: u32);

    /// ln w of the root's children in the other requests.
    fn weigh_root(
        nodes: Ptr<u32>,
        bids: Ptr<u64>,
        rules: Ptr<u32>,
        terms: Ptr<f64>,
        ln_w: PtrMut<f64>,
        layers: u32,
        codes: u32,
    );
}
