module tdtdecode.example/decode

go 1.19
