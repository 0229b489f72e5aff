package cluster

// The cluster's certificates and kubeconfigs: one authority, and one client
// certificate per component under the names that Kubernetes' bootstrap RBAC
// policy and Node authorizer know, so that nothing runs with more rights than
// it has in production. Service-account tokens are signed with a key of their own.

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

type authority struct {
	plan        Plan
	key         crypto.Signer
	certificate *x509.Certificate
	pem         []byte
}

// createPKI writes all keys, certificates and kubeconfigs below pki/.
func (p Plan) createPKI() error {
	if err := os.MkdirAll(p.path("pki"), 0o700); err != nil {
		return fmt.Errorf("make the directory for the cluster's keys: %w", err)
	}
	ca, err := p.newAuthority()
	if err != nil {
		return fmt.Errorf("make the cluster's certificate authority: %w", err)
	}
	if err := p.writeServiceAccountKey(); err != nil {
		return fmt.Errorf("make the key for service-account tokens: %w", err)
	}
	server := []string{p.serverAddress(), p.serviceAddress(1), "127.0.0.1", "localhost", "kubernetes",
		"kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if err := ca.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, server); err != nil {
		return err
	}
	clients := map[string]pkix.Name{
		"admin":              {CommonName: "kubernetes-admin", Organization: []string{"system:masters"}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"proxy":              {CommonName: "system:kube-proxy"},
	}
	for _, n := range p.Nodes {
		clients[n.Name] = pkix.Name{CommonName: "system:node:" + n.Name, Organization: []string{"system:nodes"}}
		if err := ca.issue(n.Name+"-serving", pkix.Name{CommonName: n.Name}, []string{n.Name, p.nodeAddress(n), "127.0.0.1"}); err != nil {
			return err
		}
	}
	for name, subject := range clients {
		if err := ca.issueClient(name, subject); err != nil {
			return err
		}
	}
	return nil
}

func (p Plan) newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate(pkix.Name{CommonName: "hostler testbed " + p.Name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca := &authority{plan: p, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	if ca.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.path("pki", "ca.crt"), ca.pem, 0o644); err != nil {
		return nil, err
	}
	return ca, writeKey(p.path("pki", "ca.key"), key)
}

// issue writes pki/<name>.crt and .key; hosts may be names and addresses.
func (a *authority) issue(name string, subject pkix.Name, hosts []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", name, err)
	}
	template := certificate(subject)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(a.plan.path("pki", name+".crt"), crt, 0o644); err != nil {
		return fmt.Errorf("write the certificate of %s: %w", name, err)
	}
	return writeKey(a.plan.path("pki", name+".key"), key)
}

// issueClient writes a certificate and a self-contained kubeconfig that uses it.
func (a *authority) issueClient(name string, subject pkix.Name) error {
	if err := a.issue(name, subject, nil); err != nil {
		return err
	}
	crt, err := os.ReadFile(a.plan.path("pki", name+".crt"))
	if err != nil {
		return fmt.Errorf("read back the certificate of %s: %w", name, err)
	}
	key, err := os.ReadFile(a.plan.path("pki", name+".key"))
	if err != nil {
		return fmt.Errorf("read back the key of %s: %w", name, err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[a.plan.Name] = &clientcmdapi.Cluster{Server: a.plan.serverURL(), CertificateAuthorityData: a.pem}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: crt, ClientKeyData: key}
	config.Contexts[a.plan.Name] = &clientcmdapi.Context{Cluster: a.plan.Name, AuthInfo: name}
	config.CurrentContext = a.plan.Name
	if err := clientcmd.WriteToFile(*config, a.plan.kubeconfig(name)); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	return nil
}

func (p Plan) kubeconfig(name string) string { return p.path("pki", name+".kubeconfig") }

func (p Plan) writeServiceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	if err := os.WriteFile(p.path("pki", "sa.pub"), block, 0o644); err != nil {
		return err
	}
	return writeKey(p.path("pki", "sa.key"), key)
}

func certificate(subject pkix.Name) *x509.Certificate {
	// An hour back, for clocks that are set right only after the cluster came up.
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetInt64(now.UnixNano()), Subject: subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key for %s: %w", path, err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write the key %s: %w", path, err)
	}
	return nil
}
