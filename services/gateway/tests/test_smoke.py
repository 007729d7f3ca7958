import time
def test_smoke(running):
    with running.rest() as c:
        print(c.get("/healthz").json())
        r=c.post("/v1/projects", params={"projectId":"acme"}, json={"displayName":"Acme"}); print(r.status_code, r.text, dict(r.headers))
        print(c.get("/v1/identity").text)
    key=running.member("acme","engineer"); print(key)
    with running.rest(key) as c:
        print(c.get("/v1/identity").text, c.get("/v1/projects").text)
        print(c.post("/v1/projects/acme/datasets", params={"dataset_id":"vans"}, json={"displayName":"Vans","foo":1}).text)
        print(c.post("/v1/projects/acme/datasets", params={"dataset_id":"vans"}, json={"displayName":"Vans"}).text)
        print(c.get("/v1/projects/b/datasets").text)
        print(c.get("/v1/projects/acme/datasets/none").text)
        r=c.post("/v1/projects/acme/sources/s:upload", params={"fileName":"x.jpg","metadata[a]":"b"}, content=b"x"*3_000_000); print(r.text)
        r=c.get("/v1/projects/acme/datasets/d/items/i:download"); print(r.content, dict(r.headers))
