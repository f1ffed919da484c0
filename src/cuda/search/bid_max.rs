//! Launches of `kernels/bid_max.cu`: the bids behind the nodes of a forest.

crate::kernels! {
    in "bid_max";

    /// Sets the bids of the touched ads.
    fn scatter_bids(touched: Ptr<u32>, new_bids: Ptr<u64>, ad_bids: PtrMut<u64>, count: u32);

    /// Adds up the nodes of one layer from their children.
    fn sum_nodes(
        nodes: Ptr<u32>,
        ad_bids: Ptr<u64>,
        bids: PtrMut<u64>,
        first: u32,
        count: u32,
        of_ads: u32,
    );

    /// Adds up the nodes so many levels above the touched ads.
    fn sum_touched(
        nodes: Ptr<u32>,
        ads: Ptr<u32>,
        ad_bids: Ptr<u64>,
        bids: PtrMut<u64>,
        touched: Ptr<u32>,
        count: u32,
        hops: u32,
    );
}
