//! TEMPORARY FAKE
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use bytes::{Bytes, BytesMut};
use vltava::runtime::sim::SimRuntime;
use vltava::runtime::*;
use vltava_protocol::api::ApiKey;
use vltava_protocol::decode::Reader;
use vltava_protocol::encode::{Part, Writer};
use vltava_protocol::frame::*;
use vltava_protocol::message::*;
use vltava_protocol::messages::*;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::batch;
use vltava_protocol::types::Uuid;

#[derive(Default)]
pub struct Log { batches: Vec<(i64,i64,Bytes)>, seq: BTreeMap<i64,Vec<(i32,i32,i64)>> }
#[derive(Default)]
pub struct Store { topics: BTreeMap<String,(u128,Vec<Log>)>, ids: i64 }
thread_local!{ static STORE: RefCell<BTreeMap<SocketAddr, Rc<RefCell<Store>>>> = RefCell::default(); }
pub struct Node { stopped: Rc<std::cell::Cell<bool>> }
impl Node { pub fn stop(&self) { self.stopped.set(true) } pub fn has_stopped(&self)->bool { self.stopped.get() } }
pub fn reset() { STORE.with(|s| s.borrow_mut().clear()) }
pub fn start(runtimes: Vec<SimRuntime>, address: SocketAddr, _ended: impl Fn(String)+'static) -> Node {
    let store = STORE.with(|s| s.borrow_mut().entry(address).or_default().clone());
    for r in runtimes {
        let store=store.clone(); let rt=r.clone();
        r.spawn(Queue::Foreground, async move {
            let l = rt.network().listen(address).await.unwrap();
            loop { if let Ok(c)=l.accept().await { let (rt2,store)=(rt.clone(),store.clone());
                rt.spawn(Queue::Foreground, async move { let _ = conn(rt2,store,c).await; }); } }
        });
    }
    Node { stopped: Default::default() }
}
async fn conn(rt: SimRuntime, store: Rc<RefCell<Store>>, c: vltava::runtime::sim::SimConnection) -> Option<()> {
    let mut buf=BytesMut::new();
    loop {
        loop {
            if buf.len()>=4 { let n=i32::from_be_bytes(buf[..4].try_into().unwrap()) as usize; if buf.len()>=4+n { break; } }
            buf.reserve(4096);
            let (r,b)=c.receive(std::mem::take(&mut buf)).await; buf=b; if r.ok()?==0 {return None}
        }
        let n=i32::from_be_bytes(buf[..4].try_into().unwrap()) as usize;
        let mut f=buf.split_to(4+n).freeze(); let f=f.split_off(4);
        let mut rd=Reader::new(f);
        let h=RequestHeader::decode(&mut rd).ok()?;
        let v=h.api_version;
        let mut w=Writer::frame();
        ResponseHeader{correlation_id:h.correlation_id}.encode(&mut w,h.api_key,v).unwrap();
        match h.api_key {
            ApiKey::API_VERSIONS => { let mut r=api_versions::ApiVersionsResponse::default();
                for (k,a,b) in [(0,3,13),(1,4,17),(2,1,10),(3,0,13),(18,0,3),(19,2,7),(20,1,6),(22,0,5)] { r.api_keys.push(api_versions::ApiVersion{api_key:k,min_version:a,max_version:b}); }
                r.encode(&mut w,v).unwrap() }
            ApiKey::INIT_PRODUCER_ID => { store.borrow_mut().ids+=1; let mut r=init_producer_id::InitProducerIdResponse::default(); r.producer_id=store.borrow().ids; r.encode(&mut w,v).unwrap() }
            ApiKey::CREATE_TOPICS => { let q=create_topics::CreateTopicsRequest::decode(&mut rd,v).ok()?;
                let mut r=create_topics::CreateTopicsResponse::default(); let mut s=store.borrow_mut();
                for t in q.topics { let e= if s.topics.contains_key(t.name.as_str()) {ErrorCode::TOPIC_ALREADY_EXISTS} else { let id=s.topics.len() as u128+1+rt.random_u64() as u128; s.topics.insert(t.name.as_str().to_owned(),(id,(0..t.num_partitions).map(|_|Log::default()).collect())); ErrorCode::NONE};
                  r.topics.push(create_topics::CreatableTopicResult{name:t.name,error_code:e,..Default::default()}); }
                r.encode(&mut w,v).unwrap() }
            ApiKey::DELETE_TOPICS => { let q=delete_topics::DeleteTopicsRequest::decode(&mut rd,v).ok()?;
                let mut r=delete_topics::DeleteTopicsResponse::default(); let mut s=store.borrow_mut();
                let names: Vec<_>=q.topics.iter().map(|t|t.name.clone().unwrap()).chain(q.topic_names).collect();
                for n in names { let e=if s.topics.remove(n.as_str()).is_some() {ErrorCode::NONE} else {ErrorCode::UNKNOWN_TOPIC_OR_PARTITION}; r.responses.push(delete_topics::DeletableTopicResult{name:Some(n),error_code:e,..Default::default()}); }
                r.encode(&mut w,v).unwrap() }
            ApiKey::METADATA => { let q=metadata::MetadataRequest::decode(&mut rd,v).ok()?; let _=q; let mut r=metadata::MetadataResponse::default();
                for (n,(id,ps)) in &store.borrow().topics { if let Some(ts)=&q.topics { if !ts.iter().any(|t|t.name.as_ref().unwrap().as_str()==n) {continue} }
                    r.topics.push(metadata::MetadataResponseTopic{name:Some(n.as_str().into()),topic_id:Uuid(*id),partitions:(0..ps.len()).map(|i|metadata::MetadataResponsePartition{partition_index:i as i32,..Default::default()}).collect(),..Default::default()}); }
                r.encode(&mut w,v).unwrap() }
            ApiKey::PRODUCE => { let q=produce::ProduceRequest::decode(&mut rd,v).ok()?; let mut r=produce::ProduceResponse::default(); let mut s=store.borrow_mut();
                for t in q.topic_data { let log=s.topics.iter_mut().find(|(n,(id,_))| n.as_str()==t.name.as_str()|| Uuid(*id)==t.topic_id && v>=13).map(|x|x.1);
                    let Some((_,log))=log else {return None}; let mut ps=vec![];
                    for p in t.partition_data { let l=&mut log[p.index as usize]; let b=p.records.unwrap().to_bytes().unwrap();
                        let (bt,_)=batch::Batch::parse(&b).ok()?; bt.check_crc().ok()?;
                        let next=l.batches.last().map_or(0,|x|x.1);
                        let mut pr=produce::PartitionProduceResponse{index:p.index,..Default::default()};
                        let mut append=true;
                        if bt.has_producer_id() { let e=l.seq.entry(bt.producer_id()).or_default();
                            if let Some(d)=e.iter().find(|d|d.0==bt.base_sequence()) { pr.base_offset=d.2; append=false; }
                            else if bt.base_sequence()!=e.last().map_or(0,|d|d.1+1) { pr.error_code=ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER; append=false; }
                            else { e.push((bt.base_sequence(),bt.last_sequence(),next)); if e.len()>5 {e.remove(0);} } }
                        if append { let mut nb=b.to_vec(); nb[..16].copy_from_slice(&bt.stamp(next,1)); pr.base_offset=next;
                            l.batches.push((next,next+bt.record_count() as i64,nb.into())); }
                        ps.push(pr); }
                    r.responses.push(produce::TopicProduceResponse{name:t.name,topic_id:t.topic_id,partition_responses:ps}); }
                r.encode(&mut w,v).unwrap() }
            ApiKey::LIST_OFFSETS => { let q=list_offsets::ListOffsetsRequest::decode(&mut rd,v).ok()?; let mut r=list_offsets::ListOffsetsResponse::default(); let s=store.borrow();
                for t in q.topics { let (_,l)=&s.topics[t.name.as_str()]; r.topics.push(list_offsets::ListOffsetsTopicResponse{name:t.name,partitions:t.partitions.iter().map(|p|list_offsets::ListOffsetsPartitionResponse{partition_index:p.partition_index,offset:l[p.partition_index as usize].batches.last().map_or(0,|x|x.1),..Default::default()}).collect()}); }
                r.encode(&mut w,v).unwrap() }
            ApiKey::FETCH => { let q=fetch::FetchRequest::decode(&mut rd,v).ok()?; rt.sleep_until(rt.now().after(std::time::Duration::from_millis(q.max_wait_ms as u64/10))).await; let mut r=fetch::FetchResponse::default(); let s=store.borrow();
                for t in q.topics { let log=s.topics.iter().find(|(n,(id,_))| n.as_str()==t.topic.as_str()|| Uuid(*id)==t.topic_id && v>=13).map(|x|x.1); let (_,log)=log?; let mut ps=vec![];
                    for p in t.partitions { let l=&log[p.partition as usize]; let mut data=BytesMut::new(); for b in &l.batches { if b.1>p.fetch_offset && data.len()<10000 { data.extend_from_slice(&b.2); } }
                        ps.push(fetch::PartitionData{partition_index:p.partition,high_watermark:l.batches.last().map_or(0,|x|x.1),records:Some(data.freeze().into()),..Default::default()}); }
                    r.responses.push(fetch::FetchableTopicResponse{topic:t.topic,topic_id:t.topic_id,partitions:ps}); }
                r.encode(&mut w,v).unwrap() }
            _ => return None,
        }
        let parts: Vec<Bytes>=w.finish_frame().unwrap().into_iter().map(|p| match p {Part::Memory(b)=>b,_=>panic!()}).collect();
        c.send(parts).await.ok()?;
    }
}
